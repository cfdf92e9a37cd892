"""The tables that benchmarks print, as kept by bench/run: DIRECTORY/BENCH.txt."""

import pathlib
import re
from collections import namedtuple

Row = namedtuple('Row', 'heading name numbers')

NUMBER = re.compile(r'(?<![\w.])[-+]?\d+(?:\.\d+)?')
FACTORS = {'': 1, 'GB': 1, 'TB': 1024}


def text(directory, bench):
	"""The table, or nothing if that benchmark was not run."""
	path = pathlib.Path(directory, bench + '.txt')
	return path.read_text() if path.exists() else ''


def rows(directory, bench):
	"""Rows: a name, and after two spaces or more what numbers there are.  A line
	without numbers that is not indented is the heading of those that follow."""
	found = []
	heading = ''
	for line in text(directory, bench).splitlines():
		name, _, rest = line.strip().partition('  ')
		numbers = [float(number) for number in NUMBER.findall(rest)]
		if numbers:
			found.append(Row(heading, name, numbers))
		elif line[:1] not in ('', ' '):
			heading = line
	return found


def number(directory, bench, name, column, heading=''):
	"""One figure, or None: of the first row whose name begins like that."""
	for row in rows(directory, bench):
		if row.name.startswith(name) and row.heading.startswith(heading):
			return row.numbers[column]
	return None


def size(name):
	"""The quantity in the name of a row, with sizes in GB: 1024 of "1 TB"."""
	match = re.search(r'([\d.]+) (GB|TB)', name) or re.search(r'([\d.]+)()', name)
	return float(match[1]) * FACTORS[match[2]]


def curve(directory, bench, heading, column, names=''):
	"""Points of a column over the sizes that rows are named by."""
	return [(size(row.name), row.numbers[column]) for row in rows(directory, bench)
			if row.heading.startswith(heading) and re.search(names, row.name)]
