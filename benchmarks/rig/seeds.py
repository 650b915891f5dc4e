"""The option `--seeds` of the benchmarks that train: one run for each."""

import click

__all__ = ["as_seeds"]


def as_seeds(_ctx: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """The numbers in `text`, a list like 1,2,3.

    Raises:
        click.BadParameter: If it is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list like 1,2,3") from error
