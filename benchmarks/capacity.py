"""How many GPUs for how many users: `python -m benchmarks.capacity`. See docs/capacity.md.

Without arguments: all studies, with assumed GPU stage times, printed and written to benchmarks/results/capacity.json.
--validate: the model against a real run of the service on this machine; its table joins the same file.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.capacity_model.stage_times import ASSUMED, stage_times
from benchmarks.capacity_model.studies import TWICE_THE_STEPS, Slo, Study
from benchmarks.capacity_model.tables import STUDIES, show_study, show_validation
from benchmarks.conditions import conditions

RESULT = Path(__file__).parent / "results" / "capacity.json"
SIZES = (1, 10, 100, 1000)
LOAD = 0.8
Save = Callable[[str, dict[str, Any]], None]


def main(
    stages: Annotated[Path | None, typer.Option(help="Stage times: a result of benchmarks.service, or a JSON.")] = None,
    setting: Annotated[str, typer.Option(help="Which result of that file.")] = "",
    denoise_s: Annotated[float | None, typer.Option(help="Seconds of a denoiser per chunk.")] = None,
    decode_s: Annotated[float | None, typer.Option(help="Seconds of a decoder per chunk, without H.264.")] = None,
    encode_s: Annotated[float | None, typer.Option(help="Seconds of H.264 per chunk.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Studies to run: {', '.join(STUDIES)}.")] = None,
    jobs_per_s: Annotated[list[float] | None, typer.Option(help="For `needed`: arrival rates.")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals, stage times and losses.")] = 0,
    validate: Annotated[bool, typer.Option("--validate", help="Compare with the service on this machine.")] = False,
    seeds: Annotated[int, typer.Option(help="For --validate: Poisson runs.")] = 3,
    output: Annotated[Path, typer.Option(help="Result file; studies that are not run keep their tables.")] = RESULT,
) -> None:
    """Runs the studies or the validation."""
    console = Console(width=200)

    def save(name: str, result: dict[str, Any]) -> None:
        report: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
        output.parent.mkdir(exist_ok=True)
        output.write_text(json.dumps(report | {name: result}, indent=1) + "\n")

    try:
        if validate:
            from benchmarks.capacity_model.validation import validate as against_service  # Ray starts only for this

            result = _stamped("--validate", against_service(range(seeds)))
            save("validation", result)
            show_validation(console, result)
        else:
            times = ASSUMED if stages is None else stage_times(stages, setting)
            given = {"denoise_s": denoise_s, "decode_s": decode_s, "encode_s": encode_s}
            changed = {name: (value,) for name, value in given.items() if value is not None}
            if changed:
                times = replace(times, source=f"{', '.join(changed)} given by hand; others: {times.source}", **changed)  # type: ignore[arg-type]
            _studies(console, save, Study(times=times, seed=seed), only or list(STUDIES), jobs_per_s)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console.print(f"written to {output.name}")


def _studies(console: Console, save: Save, study: Study, only: list[str], jobs_per_s: list[float] | None) -> None:
    rates, slo, twice = jobs_per_s or (0.1, 1.0, 10.0, 50.0), Slo(), "needed-2+2+2"
    studies = dict.fromkeys(STUDIES, study) | {twice: replace(study, mix=TWICE_THE_STEPS)}
    objectives = dict.fromkeys(STUDIES, slo) | {twice: replace(slo, missed_share=1.0)}
    runs = {
        "scale": lambda: study.scale(SIZES, LOAD),
        "needed": lambda: study.needed(rates, slo),
        twice: lambda: studies[twice].needed(rates, objectives[twice]),
        "overload": lambda: study.overload(40, (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.5)),
        "preemption": lambda: study.preemption(20, 0.95),
        "spot": lambda: study.spot(40, 0.8, (1e6, 24.0, 4.0, 1.0, 0.25)),
        "autoscaling": lambda: study.autoscaling(20, (30.0, 120.0, 300.0, 600.0)),
        "routers": lambda: study.routers(50, 0.85, (1.0, 1.5, 2.0)),
        "sessions": lambda: study.sessions(40, (None, 4)),
    }
    if unknown := set(only) - set(runs):
        raise ValueError(f"only: {sorted(unknown)} is not allowed; allowed: {', '.join(runs)}")
    console.print(f"Stage times: {study.times.source}", highlight=False)
    for name in only:
        rows = runs[name]()
        mix = [asdict(kind) for kind in studies[name].mix]
        inputs = {"stage_times": asdict(study.times), "mix": mix, "slo": asdict(objectives[name])}
        save(name, _stamped(f"--only {name}", {"seed": study.seed, "inputs": inputs, "rows": rows}))
        show_study(console, name, rows)


def _stamped(arguments: str, result: dict[str, Any]) -> dict[str, Any]:
    command = f"python -m benchmarks.capacity {arguments}"
    return {"command": command, "conditions": conditions() | {"simpy": version("simpy")}, **result}


if __name__ == "__main__":
    typer.run(main)
