"""The values of ``--cfg-options KEY=VALUE``."""

import argparse
import re

_CLOSING = {'[': ']', '(': ')', '{': '}'}
_DEEPEST = 50


class ConfigOptions(argparse.Action):
    """Collects ``KEY=VALUE`` in a dict; the values are read by :func:`parse_value`."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Add what stands behind one ``--cfg-options`` to what earlier ones gave."""
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, mark, value = text.partition('=')
            if not mark or not all(key.split('.')):
                raise argparse.ArgumentError(self, f'{text!r} is not KEY=VALUE, as in train_cfg.max_epochs=2')
            try:
                options[key] = parse_value(value)
            except ValueError as error:
                raise argparse.ArgumentError(self, f'cannot read the value of {key}={value}: {error}') from error
        setattr(namespace, self.dest, options)


def parse_value(text):
    """Read a value as users of the mm packages write it.

    Numbers, ``True``, ``False``, ``None``, words with or without quotes, ``a,b`` and ``[a, b]`` for lists, ``(a, b)``
    for tuples, ``{key: value}`` and ``dict(key=value)`` for dicts, inside each other. What stands in quotes is text.
    Spaces inside a word stay; those around it do not, unless it has quotes.

    Args:
        text (str): The value.

    Returns:
        int | float | bool | str | list | tuple | dict | None: What it means.

    Raises:
        ValueError: If a bracket or a quote has no end, or a dict is none; the message says where.
    """
    reader = _Reader(text)
    first = reader.element('')
    if reader.at_end():
        return first
    return [first, *reader.elements('')]


class _Reader:
    """Goes through a text once, from left to right."""

    def __init__(self, text):
        self.text, self.position, self.depth = text, 0, 0

    def at_end(self):
        return self.position >= len(self.text)

    def peek(self):
        return '' if self.at_end() else self.text[self.position]

    def skip_spaces(self):
        while self.peek().isspace():
            self.position += 1

    def elements(self, closing):
        """Read ``, a, b]``, from the comma to behind the bracket; a comma may stand before it."""
        found = []
        while self.peek() == ',':
            self.position += 1
            self.skip_spaces()
            if self.peek() == closing:
                break
            found.append(self.element(closing))
        self.close(closing)
        return found

    def close(self, closing):
        if self.peek() != closing:
            raise ValueError(f'{closing!r} is expected at character {self.position + 1}{self.rest()}')
        self.position += len(closing)

    def rest(self):
        return f', before {self.text[self.position :]!r}' if not self.at_end() else ', where the value ends'

    def element(self, closing):
        """Read one value, up to a comma, the closing bracket or the end."""
        self.skip_spaces()
        start = self.position
        for begins, read in ((r'[\[(]', self.sequence), (r'\{(?!\s*:)|dict\(', self.mapping), (r'[\'"]', self.quoted)):
            if re.compile(begins).match(self.text, start):
                value = read()
                self.skip_spaces()
                if self.peek() in ('', ',', closing):
                    return value
                if begins == r'[\'"]':
                    raise ValueError(f'the text in quotes ends at character {self.position}{self.rest()}')
                # As in (a)_b, or {name}.png: part of a word.
                self.position = start
        return _scalar(self.word(f',{closing}'))

    def sequence(self):
        opening = self.peek()
        closing = _CLOSING[opening]
        self.go_deeper()
        self.skip_spaces()
        values = []
        if self.peek() != closing:
            values = [self.element(closing)]
        values += self.elements(closing)
        self.depth -= 1
        return tuple(values) if opening == '(' else values

    def mapping(self):
        start = self.position
        is_call = self.text.startswith('dict(', start)
        closing, colon = (')', '=') if is_call else ('}', ':')
        self.position += len('dict') if is_call else 0
        self.go_deeper()
        values: dict = {}
        self.skip_spaces()
        while self.peek() != closing:
            if self.at_end():
                raise ValueError(f'{closing!r} is expected at character {self.position + 1}{self.rest()}')
            is_quoted = self.peek() in '\'"' and not is_call
            key = self.quoted() if is_quoted else _key(self.word(f',{closing}{colon}'))
            self.skip_spaces()
            if self.peek() == closing and not values and not is_quoted:
                # One word in braces, as in the name of a file: {name}
                self.position += 1
                self.depth -= 1
                return self.text[start : self.position]
            self.close(colon)
            values[key] = self.element(closing)
            if self.peek() == ',':
                self.position += 1
                self.skip_spaces()
        self.position += 1
        self.depth -= 1
        return values

    def go_deeper(self):
        self.position += 1
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f'brackets stand more than {_DEEPEST} deep')

    def quoted(self):
        quote = self.peek()
        found = re.compile(rf'{quote}((?:[^\\{quote}]|\\.)*){quote}', re.DOTALL).match(self.text, self.position)
        if not found:
            raise ValueError(f'the quote {quote} at character {self.position + 1} has no end')
        self.position = found.end()
        # A backslash protects quotes and backslashes; others stay, as in file names and patterns.
        return re.sub(r'\\([\\\'"])', r'\1', found[1])

    def word(self, ends):
        """Read up to one of ``ends`` outside brackets."""
        start = self.position
        open_brackets: list[tuple[str, int]] = []
        while not self.at_end() and (open_brackets or self.peek() not in ends):
            sign = self.peek()
            if sign in _CLOSING:
                open_brackets.append((_CLOSING[sign], self.position))
            elif open_brackets and sign == open_brackets[-1][0]:
                open_brackets.pop()
            elif sign in _CLOSING.values():
                raise ValueError(f'{sign!r} at character {self.position + 1} closes nothing')
            self.position += 1
        if open_brackets:
            raise ValueError(f'{self.text[open_brackets[-1][1]]!r} at character {open_brackets[-1][1] + 1} has no end')
        return self.text[start : self.position].strip()


def _scalar(word):
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return {'true': True, 'false': False}.get(word.lower(), None if word == 'None' else word)


def _key(word):
    return int(word) if re.fullmatch(r'-?\d+', word) else word
