"""The report: tables, figures and one page, made from an `Evaluation` and from nothing else of a run."""
