"""Groups of commands that answer a misspelt one with the nearest."""

import difflib

import click

__all__ = ["CommandGroup"]


class CommandGroup(click.Group):
    """A group; an unknown command is refused with the nearest one, or with all there are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            near = difflib.get_close_matches(args[0], known, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx=ctx)
        return super().resolve_command(ctx, args)
