"""How templates become pages: one environment, whose filters write numbers as all of a report does."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from predilect.report import wording

__all__ = ["render_page"]


def render_page(template: str, **values: Any) -> str:
    """Fill a template of the report.

    Args:
        template: Its file name.
        values: What it shows; a name that it needs and is not given is an error.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("predilect.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": wording.number,
        "signed": wording.signed,
        "short": wording.short,
        "interval": lambda item, digits=3: wording.interval(item.low, item.high, digits),
        "bounds": wording.interval,
        "p_value": wording.p_value,
        "gain_findings": wording.gain_findings,
        "count": lambda n: wording.UNDEFINED if n is None else f"{n:,}",
        "breakable": lambda name: Markup("/<wbr>").join(name.split("/")),  # a line may end after a slash
    }
    return environment
