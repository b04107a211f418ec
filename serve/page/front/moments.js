// The moments of a recording that fit the query: its curve over time, and every stretch that stands out.

import { draw, find, make } from './dom.js';
import { ask } from './client.js';
import { sentTerms } from './state.js';
import { clock, meaning } from './words.js';

const WIDTH = 340, HEIGHT = 54, MOST = 200;

/** A section with the strip of a recording for the current query; null without a query or without stretches. */
export async function moments(item, { signal }) {
  const terms = sentTerms();
  if (!terms.length) return null;
  const body = { terms, k: MOST, every_segment: true, where: 'path = ' + "'" + item.path.replaceAll("'", "''") + "' and modality = '" + item.modality + "'" };
  const answer = await ask('v1/search', { method: 'POST', json: body, signal });
  const stretches = answer.data.filter(hit => hit.start_s !== null).sort((a, b) => a.start_s - b.start_s);
  if (stretches.length < 2) return null;
  const found = joined(stretches.filter(hit => hit.likely ?? hit.score >= 3));
  const list = make('div', { className: 'acts' }, ...found.map(moment => {
    const made = make('button', { type: 'button', className: 'chip' }, clock(moment.start) + ' to ' + clock(moment.end) + ', ' + meaning(moment.best)[1]);
    made.addEventListener('click', () => seek(moment.best.start_s));
    return made;
  }));
  const title = found.length ? 'Moments that fit' : 'No moment stands out';
  return make('div', {}, make('h3', {}, title), strip(item, stretches, found), list);
}

/** Stretches in order of time -> those that touch, joined, each with its best. */
function joined(stretches) {
  const found = [];
  for (const hit of stretches) {
    const last = found[found.length - 1];
    if (last && hit.start_s <= last.end + 0.01) {
      last.end = Math.max(last.end, hit.end_s);
      if (hit.score > last.best.score) last.best = hit;
    } else {
      found.push({ start: hit.start_s, end: hit.end_s, best: hit });
    }
  }
  return found;
}

function strip(item, stretches, found) {
  const end = Math.max(item.duration_s || 0, ...stretches.map(hit => hit.end_s));
  const scores = stretches.map(hit => hit.score), low = Math.min(0, ...scores), high = Math.max(5, ...scores);
  const x = seconds => seconds / end * WIDTH, y = score => HEIGHT - 6 - (score - low) / (high - low) * (HEIGHT - 12);
  const points = stretches.map(hit => x((hit.start_s + hit.end_s) / 2).toFixed(1) + ' ' + y(hit.score).toFixed(1));
  const svg = draw('svg', { class: 'moments', viewBox: '0 0 ' + WIDTH + ' ' + HEIGHT, role: 'img', 'aria-label': 'How well each moment fits: best at ' + clock(stretches.reduce((a, b) => a.score > b.score ? a : b).start_s) },
    ...found.map(({ start, end: until }) => draw('rect', { x: x(start), y: 0, width: Math.max(3, x(until) - x(start)), height: HEIGHT })),
    draw('path', { d: 'M' + points.join('L') }));
  svg.addEventListener('click', event => {
    const box = svg.getBoundingClientRect();
    seek((event.clientX - box.left) / box.width * end);
  });
  return make('div', {}, svg, make('p', { className: 'scale' }, make('span', {}, '0:00'), make('span', {}, clock(end))));
}

function seek(seconds) {
  const player = find('.viewer video, .viewer audio');
  if (!player) return;
  player.currentTime = seconds;
  player.play().catch(() => null);
}
