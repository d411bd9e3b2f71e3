"""Folders of strangers whose links would take for ever to follow."""

import pytest

from lgag_jax.imagery import listing
from lgag_jax.inputs import prepared_sets


@pytest.mark.parametrize("targets", [(".", "."), ("../s", "..", "."), None], ids=str)
def test_links_without_end_are_not_followed(tmp_path, targets):
  """Two links in a folder to itself make 2 ** 40 folders; so do folders with two links to the next."""
  folder = tmp_path / "s"
  folder.mkdir()
  for number, target in enumerate(targets or ()):
    (folder / str(number)).symlink_to(target)
  for step in range(0 if targets else 25):
    (tmp_path / f"s{step}" if step else folder).mkdir(exist_ok=True)
    (tmp_path / f"s{step + 1}").mkdir()
    for name in "ab":
      (tmp_path / (f"s{step}" if step else "s") / name).symlink_to(f"../s{step + 1}")
  for search in (lambda: prepared_sets.check([folder]), lambda: listing.matches(f"{folder}/**/*.tif")):
    with pytest.raises(ValueError, match="holds more than 131072 folders"):
      search()
