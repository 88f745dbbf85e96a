import pytest

from predilect.errors import RecipeError
from predilect.recipe import SYSTEMS, Preprocessing, Recipe, shipped_recipes, system


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_opens_and_says_its_name(name):
    recipe = Recipe.open(name)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("iteratons=5", "unknown key 'iteratons': did you mean 'iterations'?"),
        ("crop=32", "unknown key 'crop': did you mean 'preprocessing.crop'?"),
        ("preprocessing.crops=5", "unknown key 'preprocessing.crops': did you mean 'crop'?"),
        ("iterations=many", "iterations = 'many'"),
        ("iterations=0", "iterations = 0"),
        ("optimizer=sdg", "'sgd' or 'adamw'"),
        ("preprocessing.crop=100", "must be a range that starts at crop"),
        ("preprocessing.mean=[0.5,0.5,0.5]", None),
        ("name", "key=value"),
        ("name.x=1", "holds no further keys"),
        ("accumulate=3", "must divide batch_size"),
        ("frozen_stages=1", "would keep random weights"),
        ("learning_rate=nan", "learning_rate"),
    ],
)
def test_a_wrong_setting_is_explained(override, message):
    if message is None:
        assert Recipe.open("demo", [override]).preprocessing.mean == (0.5, 0.5, 0.5)
        return
    with pytest.raises(RecipeError) as caught:
        Recipe.open("demo", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("needs_it", ["schedule=plateau", "patience=2", "keep=best"])
def test_nothing_can_watch_a_training_without_a_slice(needs_it):
    assert Recipe.open("demo", ["validation_share=0"]).validation_share == 0
    with pytest.raises(RecipeError, match="leaves nothing for"):
        Recipe.open("demo", ["validation_share=0", needs_it])


def test_overrides_are_toml_or_bare_words():
    recipe = Recipe.open("demo", ["iterations=500", "backbone=resnet18", "preprocessing.jitter=[70, 90]", 'weights="none"'])
    assert (recipe.iterations, recipe.backbone, recipe.weights) == (500, "resnet18", "none")
    assert recipe.preprocessing.jitter == (70, 90)


def test_a_recipe_file_is_read_and_survives_json(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nbackbone = "resnet18"\n[preprocessing]\ncrop = 192\n')
    recipe = Recipe.open(str(path))
    assert recipe.preprocessing == Preprocessing(crop=192)
    assert Recipe.from_mapping(recipe.model_dump(mode="json"), "again") == recipe


def test_broken_and_missing_files_are_named(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(RecipeError, match=r"broken\.toml is not valid TOML"):
        Recipe.open(str(path))
    with pytest.raises(RecipeError, match="no such recipe file"):
        Recipe.open(str(tmp_path / "absent.toml"))
    with pytest.raises(RecipeError, match="did you mean 'demo'"):
        Recipe.open("deno")


def test_systems_bring_their_tasks():
    recipe = Recipe.open("demo")
    assert system("mtl", recipe).tasks == ("lesion", "site")
    assert system("resnet-site", recipe).tasks == ("site",)
    assert system("alexnet", recipe).recipe.backbone == "alexnet"
    assert set(SYSTEMS) == {"resnet", "resnet-site", "mtl", "alexnet", "mtl-scratch"}
    trained = recipe.starting_from("pretrained")
    assert (system("mtl", trained).recipe.weights, system("mtl-scratch", trained).recipe.weights) == ("pretrained", "none")
    with pytest.raises(RecipeError, match="did you mean 'resnet'"):
        system("resnett", recipe)
