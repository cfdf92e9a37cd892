// Draws what the page of pg_ptrack report has as data.  What was drawn is said in
// attributes data-drawn, for those who check it.
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);

function when(seconds)
{
	return seconds ? new Date(seconds * 1000).toISOString().replace('T', ' ').slice(0, 19) + ' GMT' : 'unknown time';
}

function range(step)
{
	return `${step.start} to ${step.end || 'now'} (${when(step.start_time)} to ${when(step.end_time)})`;
}

// Bars of what changed in each step.
function drawChurn(place)
{
	const space = 'http://www.w3.org/2000/svg';
	const svg = document.createElementNS(space, 'svg');
	const most = Math.max(1, ...data.steps.map(step => step.changed));
	let drawn = 0;

	svg.setAttribute('viewBox', `0 0 ${Math.max(1, data.steps.length)} 100`);
	svg.setAttribute('preserveAspectRatio', 'none');
	data.steps.forEach((step, i) => {
		const bar = document.createElementNS(space, 'rect');
		const title = document.createElementNS(space, 'title');
		const height = step.coarse ? 100 : 100 * step.changed / most;

		Object.entries({ x: i + 0.05, y: 100 - height, width: 0.9, height }).forEach(([name, value]) => bar.setAttribute(name, value));
		if (step.coarse)
			bar.setAttribute('class', 'coarse');
		title.textContent = `${step.changed} blocks${step.coarse ? ', or more' : ''}, ${range(step)}`;
		bar.append(title);
		svg.append(bar);
		drawn += step.changed;
	});
	place.append(svg);
	place.dataset.drawn = drawn;
}

// The regions of a fork, all of one width: the widest of any step.  Widths are powers
// of two, so that a narrow region is in one wide one.
function regionsOf(fork)
{
	const cells = data.steps.map(step => step.forks[fork]);
	const width = Math.max(1, ...cells.map(cell => cell && cell.width || 1));
	let rows = Math.ceil((data.forks[fork].blocks || 0) / width);
	const columns = cells.map(cell => {
		const counts = [];

		if (cell)
			cell.regions.forEach((count, i) => {
				const row = Math.floor(i * cell.width / width);

				counts[row] = (counts[row] || 0) + count;
			});
		rows = Math.max(rows, counts.length);
		return counts;
	});

	return { cells, width, rows: Math.max(1, rows), columns };
}

// Light yellow to dark red.
function colour(share)
{
	const t = Math.sqrt(Math.min(1, share));

	return `hsl(${48 - 44 * t}, 92%, ${78 - 46 * t}%)`;
}

function drawColumn(context, map, column)
{
	const cell = map.cells[column];
	let drawn = 0;

	if (cell && cell.limit !== null)
	{
		const from = Math.floor(cell.limit / map.width);

		context.fillStyle = cell.changed === null ? '#6b7280' : '#d5dae3';
		context.fillRect(column, from, 1, Math.max(0, map.rows - from));
	}
	map.columns[column].forEach((count, row) => {
		if (!count)
			return;
		context.fillStyle = colour(count / map.width);
		context.fillRect(column, row, 1, 1);
		drawn += count;
	});
	return drawn;
}

function describe(map, column, row)
{
	const step = data.steps[column];
	const cell = map.cells[column];
	const what = cell && cell.changed === null ? 'all may have changed' : `${map.columns[column][row] || 0} changed`;
	const limit = cell && cell.limit !== null ? `; limit block ${cell.limit}` : '';

	return `blocks ${row * map.width} to ${(row + 1) * map.width - 1}: ${what}${limit}\n${range(step)}`;
}

// One pixel for each region and step; the style enlarges them.
function drawMap(canvas)
{
	const map = regionsOf(Number(canvas.dataset.fork));
	let drawn = 0;

	canvas.width = Math.max(1, data.steps.length);
	canvas.height = map.rows;
	data.steps.forEach((step, column) => {
		drawn += drawColumn(canvas.getContext('2d'), map, column);
	});
	canvas.dataset.drawn = drawn;
	canvas.addEventListener('mousemove', event => {
		const column = Math.floor(event.offsetX / canvas.clientWidth * canvas.width);
		const row = Math.floor(event.offsetY / canvas.clientHeight * canvas.height);

		if (column >= 0 && column < data.steps.length && row >= 0 && row < map.rows)
			canvas.title = describe(map, column, row);
	});
}

drawChurn(document.getElementById('churn'));
document.querySelectorAll('canvas').forEach(drawMap);
