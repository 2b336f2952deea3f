"""The page of plans shows a plan for each machine, and the refusal where there is none."""

from docs.generate import plans


def test_every_machine_has_its_plan_or_its_refusal() -> None:
    text = plans.page()
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert list(sections) == [title for title, _, _ in plans.MACHINES]
    assert "Refused: denoiser.device: auto: there is no GPU" in sections.pop("No GPU")
    for title, section in sections.items():
        assert section.count("\n| ") == 4, title
        assert "| denoiser | " in section
    assert "| denoiser | 6 | a GPU |" in sections["Eight cards of 80 GB"]
