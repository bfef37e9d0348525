"""What was found and mended, counted, as lines for people."""

from vik_mm.datasets.wording import enumerate_some

_EXAMPLES = 3


class Notes:
    """Collects lines; what happens many times is one line with a count and the first examples."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str] | None] = {}

    def say(self, text: str) -> None:
        """Add a line once."""
        self._lines[text] = None

    def add(self, what: str, example: str) -> None:
        """Count something.

        Args:
            what (str): What it is and what is done with it, in the plural: 'boxes without area, left out'.
            example (str): Where it was seen.
        """
        examples = self._lines.setdefault(what, [])
        if examples is not None:
            examples.append(example)

    def counts(self) -> dict[str, int]:
        """Tell how often each thing was counted."""
        return {what: len(examples) for what, examples in self._lines.items() if examples is not None}

    def lines(self) -> tuple[str, ...]:
        """Write all of it down."""
        return tuple(what if examples is None else _counted(what, examples) for what, examples in self._lines.items())


def _counted(what: str, examples: list[str]) -> str:
    different = list(dict.fromkeys(examples))
    shown = ', '.join(different[:_EXAMPLES]) + (', ...' if len(different) > _EXAMPLES else '')
    return f'{what}: {len(examples):,} ({shown})'


def listed(values) -> str:
    """Write values for an error, the first ones of many."""
    return enumerate_some(values, _EXAMPLES)
