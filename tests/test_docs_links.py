"""Each relative link of README, CONTRIBUTING and docs leads to a file, and its anchor to a heading, without Sphinx."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ['README.md', 'CONTRIBUTING.md', *sorted(str(page.relative_to(ROOT)) for page in (ROOT / 'docs').rglob('*.md'))]


def prose(page):
    """A page without its blocks of code, where brackets are no links and a # is no heading."""
    return re.sub(r'^(```|~~~).*?^\1', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found, seen = set(), Counter()
    for included in re.findall(r'^:::\{include\} (\S+)', page.read_text(), re.MULTILINE):
        found |= anchors(page.parent / included)
    for heading in re.findall(r'^#{1,6} +(.+?)\s*$', prose(page), re.MULTILINE):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
        found.add(f'{slug}-{seen[slug]}' if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken_links(page):
    text = re.sub(r'`[^`\n]*`', '``', prose(page))
    links = re.findall(r'\]\(<?([^)>\s]+)>?(?:\s+"[^"]*")?\)', text)
    pictures = re.findall(r'\b(?:src|srcset)="([^"]+)"|^:::\{image\} (\S+)', text, re.MULTILINE)
    for target in links + [tag or directive for tag, directive in pictures]:
        if re.match(r'\w+:', target):
            continue
        path, _, anchor = target.partition('#')
        file = page.parent / path if path else page
        if not file.exists():
            yield f'{target}: there is no such file'
        elif anchor and anchor not in anchors(file):
            yield f'{target}: there is no such heading; there are {sorted(anchors(file))}'


@pytest.mark.parametrize('name', PAGES)
def test_relative_links_lead_to_files_and_headings(name):
    assert list(broken_links(ROOT / name)) == []


def toctree_entries(page):
    """The pages that a page's toctrees list, which are written without their ending."""
    for block in re.findall(r'^:::\{toctree\}\n(.*?)^:::', page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.strip() and not line.startswith(':'):
                titled = re.search(r'<(.+)>$', line)
                yield page.parent / (titled[1] if titled else line.strip())


def test_the_site_has_each_page_in_a_menu_and_no_entry_without_a_page():
    docs = ROOT / 'docs'
    entries = {entry for name in PAGES for entry in toctree_entries(ROOT / name)}
    pages = {page.with_suffix('') for page in docs.rglob('*') if page.suffix in ('.md', '.rst')}
    assert entries == pages - {docs / 'index'}


def test_what_is_broken_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# One heading\n## One `heading`, again: (2)\n## Twice\n## Twice\n'
        '[a](#one-heading) [b](page.md#one-heading-again-2) [c](#twice-1) [d](https://x.y/z) `[e](no.md)`\n'
        '```bash\n# no-heading\n[f](no.md)\n```\n'
        '[g](missing.md) ![h](missing.png) [i](#no-heading) [j](page.md#twice-2)\n'
        '<img src="missing.svg">\n:::{image} missing.jpg\n:::\n'
    )
    targets = [line.split(':')[0] for line in broken_links(page)]
    assert targets == ['missing.md', 'missing.png', '#no-heading', 'page.md#twice-2', 'missing.svg', 'missing.jpg']
