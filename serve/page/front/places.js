// Where a picture shows what was asked for: boxes and heat over it. A box, or a part that is drawn by hand, can be
// searched with.

import { button, find, make, notify } from './dom.js';
import { ask } from './client.js';
import { go, sentTerms } from './state.js';
import { nameOf } from './words.js';
import { searchFiles } from './query.js';

const SMALLEST_PX = 12, MOST_BOXES = 5, HEAT_SHARE = 0.55;

/** Shows or hides the places over the preview of an item. */
export async function showPlaces(stage, item, opener) {
  const before = find('.overlay', stage);
  if (before) {
    before.remove();
    find('.places-note', stage)?.remove();
    stage.classList.remove('selecting');
    opener.setAttribute('aria-pressed', 'false');
    return;
  }
  const image = find('img.whole', stage);
  if (!image) return;
  opener.setAttribute('aria-pressed', 'true');
  const overlay = make('div', { className: 'overlay' });
  const note = make('div', { className: 'places-note', role: 'status' });
  stage.append(overlay, note);
  fit(overlay, image);
  new ResizeObserver(() => fit(overlay, image)).observe(stage);
  overlay.style.transform = image.style.transform;
  selecting(stage, overlay, image, item);
  const terms = sentTerms();
  if (!terms.length) { note.append('Draw a box to search with that part.'); return; }
  note.append('Looking where…');
  try {
    const located = await ask('v1/locate', { method: 'POST', json: { picture: { item: item.id }, terms } });
    if (!overlay.isConnected) return;
    if (item.modality === 'image') heat(overlay, located.heat);
    const boxes = located.boxes.slice(0, MOST_BOXES);
    boxes.forEach((box, number) => overlay.append(boxOf(box, number, located, image, item)));
    note.replaceChildren(boxes.length ? 'Warm places look most like your query. Click a box, or draw one, to search with that part.' : 'No part stands out. Draw a box to search with that part.');
  } catch (error) {
    note.replaceChildren();
    notify(error.title || 'It could not be said where', error.text || '', [], error.title ? error : { detail: String(error) });
  }
}

/** Lays the overlay over the picture as it is drawn (object-fit: contain). */
function fit(overlay, image) {
  const width = image.naturalWidth || 1, height = image.naturalHeight || 1;
  const scale = Math.min(image.clientWidth / width, image.clientHeight / height);
  const w = width * scale, h = height * scale;
  Object.assign(overlay.style, { width: w + 'px', height: h + 'px', left: image.offsetLeft + (image.clientWidth - w) / 2 + 'px', top: image.offsetTop + (image.clientHeight - h) / 2 + 'px' });
  // The overlay is enlarged about the same point as the picture, which is the middle of the stage.
  overlay.style.transformOrigin = w / 2 + 'px ' + h / 2 + 'px';
}

function heat(overlay, { width, height, data }) {
  const values = new Float32Array(Uint8Array.from(atob(data), character => character.charCodeAt(0)).buffer);
  const canvas = make('canvas', { width, height, className: 'heat', 'aria-hidden': 'true' });
  const context = canvas.getContext('2d'), pixels = context.createImageData(width, height);
  const low = Math.min(...values), spread = Math.max(1e-6, Math.max(...values) - low);
  values.forEach((value, place) => {
    const share = (value - low) / spread, warm = Math.max(0, (share - HEAT_SHARE) / (1 - HEAT_SHARE));
    pixels.data.set([255, 190 - 150 * warm, 40, 165 * warm], place * 4);
  });
  context.putImageData(pixels, 0, 0);
  overlay.append(canvas);
}

function boxOf(box, number, located, image, item) {
  const made = make('button', { type: 'button', className: 'box', title: 'Search with this part', 'aria-label': 'Part ' + (number + 1) + ': search with it' });
  const part = (value, whole) => value / whole * 100 + '%';
  Object.assign(made.style, {
    left: part(box.x0, located.width), top: part(box.y0, located.height),
    width: part(box.x1 - box.x0, located.width), height: part(box.y1 - box.y0, located.height),
  });
  made.append(make('b', {}, String(number + 1)));
  made.addEventListener('click', () => searchPart(image, item, { x: box.x0 / located.width, y: box.y0 / located.height, w: (box.x1 - box.x0) / located.width, h: (box.y1 - box.y0) / located.height }));
  return made;
}

function selecting(stage, overlay, image, item) {
  stage.classList.add('selecting');
  const frame = make('div', { className: 'drawn', hidden: true });
  overlay.append(frame);
  let from = null;
  const at = event => {
    const box = overlay.getBoundingClientRect();
    return [Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)), Math.min(1, Math.max(0, (event.clientY - box.top) / box.height))];
  };
  overlay.addEventListener('pointerdown', event => { if (!event.target.closest('.box, .go')) { from = at(event); overlay.setPointerCapture(event.pointerId); find('.go', overlay)?.remove(); } });
  overlay.addEventListener('pointermove', event => {
    if (!from) return;
    const to = at(event);
    frame.hidden = false;
    Object.assign(frame.style, {
      left: Math.min(from[0], to[0]) * 100 + '%', top: Math.min(from[1], to[1]) * 100 + '%',
      width: Math.abs(to[0] - from[0]) * 100 + '%', height: Math.abs(to[1] - from[1]) * 100 + '%',
    });
  });
  overlay.addEventListener('pointerup', event => {
    if (!from) return;
    const to = at(event), part = { x: Math.min(from[0], to[0]), y: Math.min(from[1], to[1]), w: Math.abs(to[0] - from[0]), h: Math.abs(to[1] - from[1]) };
    from = null;
    if (part.w * overlay.clientWidth < SMALLEST_PX || part.h * overlay.clientHeight < SMALLEST_PX) { frame.hidden = true; return; }
    const act = button('Search with this part', () => searchPart(image, item, part), 'primary go');
    Object.assign(act.style, { left: part.x * 100 + '%', top: (part.y + part.h) * 100 + '%' });
    overlay.append(act);
    act.focus();
  });
}

/** Cuts a part (in parts of the picture's sides) out of what the browser shows, and searches with it. */
async function searchPart(image, item, { x, y, w, h }) {
  const canvas = make('canvas', { width: Math.max(1, Math.round(w * image.naturalWidth)), height: Math.max(1, Math.round(h * image.naturalHeight)) });
  canvas.getContext('2d').drawImage(image, x * image.naturalWidth, y * image.naturalHeight, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise(resolve => canvas.toBlob(resolve, 'image/png'));
  const stem = nameOf(item).replace(/\.[^.]*$/, '');
  go({ item: null });
  searchFiles([new File([blob], 'part of ' + stem + '.png', { type: 'image/png' })], { alone: true });
}
