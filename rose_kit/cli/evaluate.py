"""`rose-kit evaluate DATA`: methods side by side on the same images, averaged over seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rose_kit.cli.inputs import (
    DomainOption,
    PluginOption,
    RegionsOption,
    SchedulerOption,
    SizeOption,
    dataset_options,
    make_encoder,
    method_options,
    parse_seeds,
    preset_of,
    regions_of,
    split_list,
    windows_of,
    writable_folder,
)
from rose_kit.registry import load_plugin

EXAMPLE = "Example: rose-kit evaluate scenes --methods zero-shot,rns --shots 1 --seeds 1,2,3 --json out.json"


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder (images/, masks/, classes.txt), or the name of a dataset: an unknown one lists "
            "those there are."
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names separated by commas: zero-shot, knn-clip, freeda, rns, offline-linear, "
            "offline-pixels, supervised (sees every annotation) [default: all but the last]."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Methods, their options, encoder, windows, seeds and size in one: rns (the kit's own), "
            "rns-openclip or rns-dinov3txt (the paper's), or a YAML file. Options given beside it win."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="bundled, handcrafted (no text), ARCHITECTURE/TAG of open_clip, or a folder "
            "[default: bundled, or the preset's]."
        ),
    ] = None,
    shots: Annotated[int, typer.Option(help="Support images per class.")] = 5,
    seeds: Annotated[
        str | None, typer.Option(help="One draw of support images each [default: 1,2,3, or the preset's].")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="METHOD.OPTION=VALUE, such as rns.solver=adamw; may be repeated."),
    ] = None,
    support_split: Annotated[
        str | None,
        typer.Option(help="Split of the folder [default: support or train, else half the images]."),
    ] = None,
    query_split: Annotated[
        str | None,
        typer.Option(help="Split of the folder [default: query, val or test, else the other half]."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Answer only this many images, evenly spread [default: all].")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names separated by commas; 'road|street' has two texts [default: the data's]."
        ),
    ] = None,
    without_visual: Annotated[
        float, typer.Option(help="Share of the classes, drawn per seed, left without visual support: 0 to 1.")
    ] = 0.0,
    without_text: Annotated[float, typer.Option(help="Share of the classes left without text.")] = 0.0,
    without_both: Annotated[float, typer.Option(help="Share of further classes left without either.")] = 0.0,
    regions: RegionsOption = None,
    domain: DomainOption = None,
    size: SizeOption = None,
    plugin: PluginOption = None,
    scheduler: SchedulerOption = None,
    json: Annotated[
        Path | None,
        typer.Option(help="File for one row per method and seed: mIoU, per-class IoU, image ids."),
    ] = None,
) -> None:
    """Compare methods by their mIoU.

    Prints percent, mean and 95 % interval over seeds. Every method sees the same support images and
    answers the same images at their own size; support
    and query never share one. Methods that need text are left out, with a warning, where the encoder
    has none.
    """
    chosen_seeds = None if seeds is None else parse_seeds(seeds)  # first: heavy imports come later
    from rose_kit import evaluation
    from rose_kit.adapter import methods as registered
    from rose_kit.data import open_dataset

    settings = preset_of(preset)
    if plugin is not None:
        load_plugin(plugin)
    names = settings.methods or _defaults(registered)
    if methods is not None:
        names = split_list(methods, "methods")
    region_maker = regions_of(regions, settings)
    gaps = evaluation.Gaps(without_visual, without_text, without_both)
    given = method_options(options or (), names, settings.options)
    chosen = {name: registered.make(name, **given[name]) for name in names}
    if json is not None:
        if json.is_dir():
            raise ValueError(f"--json {str(json)!r} is a folder; name a file")
        writable_folder(json.parent)
    drawn = dataset_options(data, domain, size, settings.size)
    support, query = open_dataset(data, drawn, support=support_split, query=query_split)
    made = make_encoder(settings.encoder if encoder is None else encoder)
    rows = evaluation.evaluate(
        support,
        query,
        made,
        chosen,
        shots=shots,
        seeds=chosen_seeds or settings.seeds,
        classes=None if classes is None else split_list(classes, "classes"),
        gaps=gaps,
        limit=limit,
        scheduler=scheduler,
        progress=sys.stderr.isatty(),
        support_windows=windows_of(settings, "support", made),
        query_windows=windows_of(settings, "query", made),
        regions=region_maker,
    )
    typer.echo(evaluation.table(rows))
    if json is not None:
        evaluation.write_json(json, rows)
        typer.echo(f"written to {json}")


def _defaults(registered: Mapping[str, Any]) -> list[str]:
    """Every method but those that see more than their draw of support images."""
    return sorted(name for name in registered if not getattr(registered[name], "upper_bound", False))
