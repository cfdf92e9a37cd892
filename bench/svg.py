"""Charts as SVG: a white panel, so that they are read on any page; nothing but text and lines."""

import math
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 76, 60
COLOURS = ('#1f77b4', '#d95f02', '#2ca02c', '#7b3294')
GRID, INK = '#dddddd', '#222222'


def label(value):
	"""A number in few characters."""
	for unit, power in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
		if abs(value) >= power:
			return f'{value / power:g}{unit}'
	return f'{value:g}'


class Axis:
	"""From values to pixels."""

	def __init__(self, values, first, last, log):
		self.first, self.last, self.log = first, last, log
		self.low, self.high, self.ticks = (log_range if log else linear_range)(values)

	def at(self, value):
		scale = math.log10 if self.log else float
		share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
		return self.first + share * (self.last - self.first)


def log_range(values):
	low = math.floor(math.log10(min(values)) + 1e-9)
	high = max(math.ceil(math.log10(max(values)) - 1e-9), low + 1)
	return 10.0 ** low, 10.0 ** high, [10.0 ** power for power in range(low, high + 1)]


def linear_range(values):
	"""Whole steps, of which there are four to ten, and zero."""
	low, high = min(0, *values), max(0, *values)
	step = 10.0 ** math.floor(math.log10((high - low) / 4))
	step *= max(factor for factor in (1, 2, 5) if (high - low) / (step * factor) >= 4)
	first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
	return first * step, last * step, [number * step for number in range(first, last + 1)]


def line(x1, y1, x2, y2, colour, width=1):
	return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def words(x, y, content, anchor='middle', size=13, colour=INK, more=''):
	return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
			f'fill="{colour}"{more}>{escape(content)}</text>')


def whisker(x, low, high, colour):
	return [line(x, low, x, high, colour)] + [line(x - 5, y, x + 5, y, colour) for y in (low, high)]


def frame(title, xlabel, ylabel, y, names):
	"""All but the data and the x axis's ticks."""
	out = [f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
		   words(WIDTH / 2, 26, title, size=16)]
	middle = (TOP + HEIGHT - BOTTOM) / 2
	out += [words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, xlabel),
			words(20, middle, ylabel, more=f' transform="rotate(-90 20 {middle:.1f})"')]
	for tick in y.ticks:
		out += [line(LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick), GRID),
				words(LEFT - 8, y.at(tick) + 4, label(tick), 'end')]
	place = LEFT
	for number, name in enumerate(names):
		out += [f'<rect x="{place}" y="44" width="14" height="14" fill="{COLOURS[number]}"/>',
				words(place + 20, 56, name, 'start')]
		place += 44 + 7 * len(name)
	return out


def document(body):
	return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
			f'height="{HEIGHT}" font-family="sans-serif">\n' + '\n'.join(body) + '\n</svg>\n')


def lines(title, xlabel, ylabel, series, goal=None, ylog=True):
	"""Curves over a logarithmic x axis.  Series: names with points (x, y) or
	(x, y, low, high)."""
	points = [point for curve in series.values() for point in curve]
	x = Axis([point[0] for point in points], LEFT + 20, WIDTH - RIGHT - 20, True)
	values = [value for point in points for value in point[1:]] + ([goal] if goal else [])
	y = Axis(values, HEIGHT - BOTTOM, TOP, ylog)
	out = frame(title, xlabel, ylabel, y, series)
	for tick in x.ticks:
		out += [line(x.at(tick), TOP, x.at(tick), HEIGHT - BOTTOM, GRID),
				words(x.at(tick), HEIGHT - BOTTOM + 20, label(tick))]
	if goal:
		out += [line(LEFT, y.at(goal), WIDTH - RIGHT, y.at(goal), INK),
				words(WIDTH - RIGHT - 4, y.at(goal) - 5, f'goal: {goal:g}', 'end')]
	for colour, curve in zip(COLOURS, series.values()):
		path = ' '.join(f'{x.at(point[0]):.1f},{y.at(point[1]):.1f}' for point in curve)
		out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
		for point in curve:
			out.append(f'<circle cx="{x.at(point[0]):.1f}" cy="{y.at(point[1]):.1f}" r="4" fill="{colour}"/>')
			if len(point) > 2:
				out += whisker(x.at(point[0]), y.at(point[2]), y.at(point[3]), colour)
	return document(out)


def bars(title, xlabel, ylabel, groups, names, form='{:.2f}'):
	"""Groups of bars, as many in each as there are names.  A bar: (value,) or
	(value, low, high)."""
	y = Axis([value for group in groups.values() for bar in group for value in bar], HEIGHT - BOTTOM, TOP, False)
	out = frame(title, xlabel, ylabel, y, names)
	room = (WIDTH - LEFT - RIGHT) / len(groups)
	width = min(room * 0.8 / len(names), 80)
	for place, (name, group) in enumerate(groups.items()):
		middle = LEFT + room * (place + 0.5)
		out.append(words(middle, HEIGHT - BOTTOM + 20, name))
		for number, bar in enumerate(group):
			left = middle + (number - len(group) / 2) * width
			top, bottom = sorted((y.at(bar[0]), y.at(0)))
			out += [f'<rect x="{left:.1f}" y="{top:.1f}" width="{width - 4:.1f}" height="{bottom - top:.1f}" '
					f'fill="{COLOURS[number]}"/>',
					words(left + width / 2 - 2, min(top, y.at(max(bar))) - 5, form.format(bar[0]), size=12)]
			if len(bar) > 1:
				out += whisker(left + width / 2 - 2, y.at(bar[1]), y.at(bar[2]), INK)
	out.append(line(LEFT, y.at(0), WIDTH - RIGHT, y.at(0), INK))
	return document(out)
