import pytest

from predilect.errors import LabelError
from predilect.labels.tasks import LabelSpace, Task, split_column

LESION = Task("lesion", ("papule", "erosion/ulcer", "erythema"), frozenset({"erythema"}))
SITE = Task("site", ("hand", "face"))
BOTH = LabelSpace((LESION, SITE))


def test_a_task_knows_its_kind_columns_and_places():
    assert (LESION.kind, SITE.kind) == ("multilabel", "multiclass")
    assert LESION.columns == ("lesion/papule", "lesion/erosion/ulcer", "lesion/erythema")
    assert len(LESION) == 3
    assert LESION.index("erosion/ulcer") == 1


def test_an_unknown_class_names_the_nearest():
    with pytest.raises(LabelError, match="unknown lesion 'papul': did you mean 'papule'"):
        LESION.index("papul")


@pytest.mark.parametrize("name", ["", " papule", "papule ", "a;b", "none", "NONE", "a\nb"])
def test_names_that_files_could_not_hold_are_refused(name):
    with pytest.raises(LabelError, match="cannot be a lesion class"):
        Task("lesion", ("scar", name))


@pytest.mark.parametrize(
    ("name", "classes", "machine", "message"),
    [
        ("lesions", ("papule",), (), "unknown task 'lesions': did you mean 'lesion'"),
        ("lesion", (), (), "has no classes"),
        ("lesion", ("papule", "papule"), (), "'papule' is named twice"),
        ("lesion", ("papule",), ("papula",), "machine-made lesion class 'papula' is not a class: did you mean 'papule'"),
    ],
)
def test_inconsistent_tasks_are_refused(name, classes, machine, message):
    with pytest.raises(LabelError, match=message):
        Task(name, classes, frozenset(machine))


def test_a_label_space_lists_tasks_and_columns_in_order():
    assert BOTH.names == ("lesion", "site")
    assert BOTH.columns == (*LESION.columns, *SITE.columns)
    assert BOTH["site"] is SITE
    assert "site" in BOTH
    assert "skin" not in BOTH


def test_a_label_space_can_be_restricted_to_one_task():
    assert BOTH.restricted_to(["site"]) == LabelSpace((SITE,))
    assert BOTH.restricted_to(["site", "lesion"]) == BOTH
    with pytest.raises(LabelError, match="there is no task 'sites' here: did you mean 'site'"):
        BOTH.restricted_to(["sites"])


@pytest.mark.parametrize("tasks", [(), (SITE, LESION), (LESION, LESION)])
def test_tasks_in_another_order_are_refused(tasks):
    with pytest.raises(LabelError, match=r"at least one task|in the order lesion, site"):
        LabelSpace(tasks)


def test_columns_are_split_at_the_first_slash_and_give_the_label_space_back():
    assert split_column("lesion/erosion/ulcer") == ("lesion", "erosion/ulcer")
    assert LabelSpace.from_columns(BOTH.columns, machine=["lesion/erythema"]) == BOTH


def test_site_columns_may_stand_first_in_a_table():
    assert LabelSpace.from_columns(["site/hand", "lesion/papule", "site/face"]).columns == (
        "lesion/papule",
        "site/hand",
        "site/face",
    )


@pytest.mark.parametrize("column", ["papule", "/papule", "lesion/", "lesion"])
def test_what_is_no_label_column_is_refused(column):
    with pytest.raises(LabelError, match="is not a label column"):
        LabelSpace.from_columns([column])


def test_columns_of_an_unknown_task_or_machine_column_are_refused():
    with pytest.raises(LabelError, match="unknown task 'tone'"):
        LabelSpace.from_columns(["lesion/papule", "tone/dark"])
    with pytest.raises(LabelError, match="'lesion/scar' is not among the label columns"):
        LabelSpace.from_columns(["lesion/papule"], machine=["lesion/scar"])


def test_json_gives_the_label_space_back():
    assert LabelSpace.from_json(BOTH.to_json()) == BOTH
    assert BOTH.to_json()["lesion"]["machine"] == ["erythema"]
