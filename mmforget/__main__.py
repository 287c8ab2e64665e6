"""The tools by name, wherever mmforget is installed: ``python -m mmforget forget CONFIG ...``."""

import runpy
import sys
from pathlib import Path

TOOLS = Path(__file__).parent / '.mim' / 'tools'


def tools() -> dict[str, Path]:
    """The scripts that came with the package, by name."""
    return {path.stem: path for path in sorted(TOOLS.rglob('*.py'))}


def main() -> None:
    """Runs the tool that is named first; the rest is the tool's own.

    Raises:
        SystemExit: No tool or an unknown one is named.
    """
    known = tools()
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name not in known:
        asked = name in ('-h', '--help')
        listed = ', '.join(known) or f'none; {TOOLS} is missing: install mmforget anew with pip'
        message = f'usage: python -m mmforget TOOL [options of the tool]\ntools: {listed}'
        print(message if asked else f'{message}\nunknown tool: {name!r}', file=sys.stderr)
        sys.exit(0 if asked else 2)
    sys.argv = [str(known[name]), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
