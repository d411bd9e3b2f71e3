"""A finding of an evaluation, with the percentages in its text."""


def finding(level: str, text: str, *advice: str) -> dict:
  """Returns a finding; empty pieces of advice are left out."""
  return {"level": level, "text": text, "remedy": " ".join(filter(None, advice))}


def percent(share: float) -> str:
  """Returns a share as percent with up to three digits."""
  return f"{100 * share:.3g} %"
