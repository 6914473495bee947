"""Every recipe can be found, says what it is for, and is one."""

import pytest

import train_net
from project.config import load_config
from project.recipes import DEFAULT_RECIPE, RECIPES, list_recipes


def test_every_recipe_says_in_a_line_what_it_is_for():
    recipes = list_recipes()
    assert DEFAULT_RECIPE in recipes and len(recipes) >= 6
    assert set(recipes) == {p for p in RECIPES.rglob("*.yaml") if not p.name.startswith("Base-")}
    for path, purpose in recipes.items():
        assert 20 < len(purpose) < 120 and "\n" not in purpose, path
    assert len(set(recipes.values())) == len(recipes)


@pytest.mark.parametrize("path", list_recipes(), ids=lambda path: path.stem)
def test_every_recipe_is_a_config(path):
    cfg = load_config(str(path))
    assert cfg.OUTPUT_DIR.startswith("output/")


def test_the_main_program_lists_them(capsys):
    with pytest.raises(SystemExit, match="0"):
        train_net.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    for path, purpose in list_recipes().items():
        name = path.relative_to(RECIPES.parent).as_posix()
        assert any(name in line and purpose in line for line in lines)
