"""What is learned from answers: the classifier, its estimate, and the tiles to ask for next."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import threadpoolctl
from scipy.special import expit
from starlette.testclient import TestClient

from lgag_jax.evaluation import image_classifier, ranking
from lgag_jax.evaluation.image_classifier import Scaler
from lgag_jax.labelling import server
from lgag_jax.labelling.answer_table import Answer
from lgag_jax.labelling.learner import Learner
from lgag_jax.labelling.session import Session
from tests.test_labelling import NO, SECRET, UNSURE, YES, settings


def literal_auc(scores, labels):
  pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
  return np.mean(pairs)


def test_the_auc_counts_pairs(rng):
  labels = rng.random(40) < 0.3
  scores = rng.integers(0, 9, 40).astype(float)
  assert ranking.area_under_curve(scores, labels) == pytest.approx(literal_auc(scores, labels))


def test_the_fit_is_the_minimum_of_the_balanced_loss(rng):
  features = rng.normal(size=(30, 7))
  labels = features[:, 0] + rng.normal(size=30) > 0.5
  weights = image_classifier.fit(features, labels)

  def loss(w):
    chance = expit(features @ w[:-1] + w[-1])
    per_kind = -np.log(chance[labels]).mean() - np.log(1 - chance[~labels]).mean()
    return 0.5 * per_kind + image_classifier._PENALTY * np.sum(w[:-1] ** 2)

  for i in range(8):
    for step in (-0.05, 0.05):
      moved = weights.copy()
      moved[i] += step
      assert loss(moved) >= loss(weights) - 1e-6
  np.testing.assert_allclose(
    image_classifier.chances(features, weights), expit(features @ weights[:-1] + weights[-1]))


def test_the_fit_keeps_to_one_thread(rng, monkeypatch):
  threads, minimise = set(), image_classifier.minimize

  def noted(*arguments, **options):
    threads.update(each["num_threads"] for each in threadpoolctl.threadpool_info())
    return minimise(*arguments, **options)

  monkeypatch.setattr(image_classifier, "minimize", noted)
  image_classifier.fit(rng.normal(size=(8, 3)), np.arange(8) < 4)
  assert threads == {1}


def test_the_scaler_standardises(rng):
  values = (rng.normal(size=(50, 4)) * (1, 5, 0, 9) + 3).astype(np.float16)
  scaled = Scaler(values)(values)
  np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)
  np.testing.assert_allclose(scaled.std(0), [0.5, 0.5, 0, 0.5], atol=1e-3)


def test_the_estimate_is_of_tiles_drawn_at_random_alone(rng):
  labels = rng.random(300) < 0.4
  signal = labels * 2.0 - 1
  features = np.stack([signal + rng.normal(size=300), rng.normal(size=300)], 1)
  at_random = rng.random(300) < 0.5
  honest = image_classifier.estimate(features, labels, at_random)
  assert honest.auc == pytest.approx(expit(4.2 * 0.6), abs=0.06)  # Phi(2 / sqrt 2) = 0.92.
  assert honest.tiles == at_random.sum()
  assert 0.01 < honest.error < 0.06
  noise = image_classifier.estimate(rng.normal(size=(300, 60)), labels, at_random)
  assert abs(noise.auc - 0.5) < 4 * noise.error  # It never sees the tiles that it scores.
  few = at_random & (np.cumsum(labels & at_random) <= 4)
  assert image_classifier.estimate(features, labels, few & (labels | ~labels)) is None
  perfect = image_classifier.estimate(np.stack([signal, signal], 1), labels, at_random)
  assert perfect.auc == 1
  assert perfect.error > 0
  assert perfect.is_flat


def learner_of(count):
  index = SimpleNamespace(
    version="v", tiles=[(0, None)] * count, key=lambda number: ("scene.tif", 0, number))
  answers = SimpleNamespace(latest={})
  return Learner(index, None, answers, NO), answers


def answer(answers, number, text):
  answers.latest[("scene.tif", 0, number)] = Answer(text, 16, "")


def test_every_fourth_suggestion_is_the_next_of_the_random_order():
  learner, answers = learner_of(200)
  order = learner._random_order.tolist()
  assert sorted(order) == list(range(200))
  assert list(learner.state(-1)["suggested"]) == order[:24]  # Nothing is known yet.
  values = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float16)
  values[:, 0] += np.arange(200) / 20
  known = np.ones(200, bool)
  known[150:] = False
  for number in order[:20]:
    answer(answers, number, UNSURE if number == order[3] else YES if number > 100 else NO)
  learner._learn(SimpleNamespace(read=values.__getitem__), known)
  state = learner.state(0)
  assert state["revision"] == 1
  suggested, chances = state["suggested"], np.array(state["chances"])
  assert len(set(suggested)) == len(suggested) == 24
  assert not set(suggested) & set(order[:20])
  assert suggested[3::4] == [n for n in order[20:] if n in suggested[3::4]]
  assert (chances[150:] == -1).all()
  others = [n for i, n in enumerate(suggested) if i % 4 != 3]
  rest = [n for n in range(150) if n not in order[:20] and n not in suggested]
  assert max(abs(chances[others] - 50)) <= min(abs(chances[rest] - 50))
  assert state["estimate"]["tiles"] == sum(n < 150 for n in order[:20] if n != order[3])
  assert learner.state(1) == {"revision": 1, "looked_at": 0, "problem": ""}


def test_only_a_prefix_of_the_random_order_counts_as_random():
  learner, answers = learner_of(50)
  order = learner._random_order
  for number in [*order[:7], *order[9:30]]:
    answer(answers, int(number), YES)
  np.testing.assert_array_equal(learner._drawn_at_random(learner._labels()), order[:7])
  for number in order:
    answer(answers, int(number), NO)
  np.testing.assert_array_equal(learner._drawn_at_random(learner._labels()), order)


def write_halves(path):
  """Writes a scene with 5 x 8 tiles of which the left half is brown."""
  noise = np.random.default_rng(1).integers(-20, 20, (160, 256, 1))
  pixels = np.full((160, 256, 3), (60, 110, 60)) + noise
  pixels[:, :128] += (90, -10, 0)
  with rasterio.open(
    path, "w", driver="GTiff", height=160, width=256, count=3, dtype="uint8"
  ) as file:
    file.write(np.moveaxis(pixels.astype(np.uint8), -1, 0))


@pytest.mark.slow
def test_a_session_learns_from_answers_and_keeps_the_features(tmp_path):
  write_halves(tmp_path / "scene.tif")
  features = None
  for attempt in range(2):
    session = Session(settings(tmp_path, tile_size=32, learn=True))
    client = TestClient(server.make_app(session, SECRET, ""), base_url=f"http://localhost/{SECRET}/",
                        headers={"Origin": "http://localhost"})
    version = session.view.index.version
    columns = [place.col for _, place in session.view.index.tiles]
    if attempt == 0:
      given = [[n, YES if columns[n] < 4 else NO] for n in (0, 3, 9, 5, 14, 31)]
      assert client.post("answers", json={"version": version, "answers": given}).status_code == 200
    session.start()
    end = time.monotonic() + 120
    state = {"chances": None}
    while (state["chances"] is None or -1 in state["chances"]) and time.monotonic() < end:
      time.sleep(0.2)
      state = client.get("learned?revision=x").json()
    assert (state["problem"], state["looked_at"]) == ("", 40)
    chances = np.array(state["chances"])
    brown = np.array(columns) < 4
    assert chances[brown].min() > 50 > chances[~brown].max()
    session.close()
    assert not session.view.learner._thread.is_alive()
    (path,) = (tmp_path / "labels").glob(".features-*.npy")
    found = np.load(path)
    assert features is None or np.array_equal(features, found)
    features = found
  assert client.get("learned?revision=-3").json()["revision"] >= 1
  assert "suggested" not in client.get(f"learned?revision={state['revision']}").json()
