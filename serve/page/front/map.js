// The map of the library: alike things lie side by side. Points become pictures as one comes nearer, groups have names,
// and what is circled becomes a filter.

import { button, find, icon, iconButton, make, panel, say } from './dom.js';
import { ask, call } from './client.js';
import { empty, go, state } from './state.js';
import { counted, number, pictured, plural, singular } from './words.js';
import { pictureOf } from './tile.js';

const EDGE = 28, LARGEST = 40, MOST_CHOSEN = 500, PICTURES_FROM = 3, MOST_PICTURES = 160, KEPT_IMAGES = 400, PICTURE = 58, HIT = 12;

let kept = null;            // the answer for one revision
const images = new Map();   // item id -> Image, in the order of their last use

export async function show(sheet, shown, current) {
  if (!kept) sheet.replaceChildren(waiting());
  const answer = await call('explore', kept && kept.revision);
  if (!current()) return;
  if (!answer.unchanged) kept = answer;
  if (!kept.points.length) {
    sheet.replaceChildren(panel('empty', 'Nothing to map yet', 'The library is empty.', button('Add files', () => go({ view: 'add' }), 'primary')));
    return;
  }
  const chart = new Chart(sheet, kept);
  const groups = await ask('v1/groups', { patient: true }).catch(() => ({ data: [] }));  // their names come when they come
  chart.groups = groups.data;
  chart.later();
}

function waiting() {
  const began = performance.now();
  const told = panel('wait', 'Drawing the map', 'Similar things are being placed side by side. For thousands of items this takes some seconds, once.', button('Cancel', () => go(empty()), 'secondary'));
  const counting = setInterval(() => {
    if (!told.isConnected) { clearInterval(counting); return; }
    find('h2', told).textContent = 'Drawing the map: ' + Math.round((performance.now() - began) / 1000) + ' s';
  }, 1000);
  return told;
}

class Chart {
  constructor(sheet, { points, modalities, total }) {
    this.points = points.map(([id, x, y, kind, name]) => ({ id, x, y, kind: modalities[kind], name }));
    this.groups = [];
    this.view = { x: 0, y: 0, scale: 1 };
    this.hiddenKinds = new Set();
    this.lasso = null;
    this.at = null;
    this.canvas = make('canvas', { className: 'map', tabIndex: 0, role: 'application', 'aria-roledescription': 'map', 'aria-label': 'Map of the library. Arrow keys go from item to item, Enter shows one, + and - enlarge and reduce.' });
    this.tip = make('div', { className: 'map-tip', hidden: true });
    this.told = make('p', { className: 'unseen', 'aria-live': 'polite' });
    this.stage = make('div', { className: 'chart' }, this.canvas, this.tip, this.told, this.tools());
    const note = total > points.length ? 'A sample of ' + number(points.length) + ' of ' + number(total) + ' items. ' : '';
    sheet.replaceChildren(this.legend(modalities), this.stage, make('p', { className: 'quiet' }, note + 'What lies side by side is similar (t-SNE); every kind was centred first, as each keeps to a region of its own. Distances between far points mean nothing.'));
    this.colours = {};
    this.listen();
    new ResizeObserver(() => this.fit()).observe(this.stage);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { this.colours = {}; this.later(); });
    say(counted(points.length, 'item', 'items') + ' on the map');
  }

  legend(modalities) {
    return make('div', { className: 'kinds', role: 'group', 'aria-label': 'Kinds on the map' }, ...modalities.map(name => {
      const toggle = make('button', { type: 'button', className: 'chip kind k-' + name, 'aria-pressed': 'true' }, icon(name), plural(name));
      toggle.addEventListener('click', () => {
        const on = this.hiddenKinds.delete(name);
        if (!on) this.hiddenKinds.add(name);
        toggle.setAttribute('aria-pressed', String(on));
        this.later();
      });
      return toggle;
    }));
  }

  tools() {
    this.lassoButton = iconButton('lasso', 'Circle items, to see only them', () => this.startLasso(), 'round');
    this.lassoButton.setAttribute('aria-pressed', 'false');
    const text = (mark, label, act) => { const made = button(mark, act, 'round'); made.title = label; made.setAttribute('aria-label', label); return made; };
    return make('div', { className: 'tools' }, text('+', 'Larger', () => this.zoom(1.6)), text('−', 'Smaller', () => this.zoom(1 / 1.6)), text('⤢', 'All of it', () => this.zoom(0)), this.lassoButton);
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.stage, ratio = Math.min(2, devicePixelRatio || 1);
    Object.assign(this, { width, height, ratio });
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.later();
  }

  later() {
    this.drawing ||= requestAnimationFrame(() => { this.drawing = 0; this.draw(); });
  }

  place({ x, y }) {
    return [this.view.x + (EDGE + x * (this.width - 2 * EDGE)) * this.view.scale, this.view.y + (EDGE + y * (this.height - 2 * EDGE)) * this.view.scale];
  }

  colour(kind) {
    if (!this.colours[kind]) {
      const style = getComputedStyle(document.documentElement);
      this.colours[kind] = style.getPropertyValue('--' + kind).trim() || style.getPropertyValue('--text').trim();
      this.colours.ink = style.getPropertyValue('--ink').trim();
      this.colours.sheet = style.getPropertyValue('--sheet').trim();
      this.colours.accent = style.getPropertyValue('--accent').trim();
    }
    return this.colours[kind];
  }

  seen() {
    return this.points.filter(point => {
      if (this.hiddenKinds.has(point.kind)) return false;
      const [x, y] = this.place(point);
      return x > -40 && y > -40 && x < this.width + 40 && y < this.height + 40;
    });
  }

  draw() {
    const context = this.canvas.getContext('2d'), seen = this.seen();
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const pictures = seen.length <= MOST_PICTURES && (this.view.scale >= PICTURES_FROM || seen.length <= MOST_PICTURES / 2);
    this.pictures = pictures;
    const radius = (this.points.length > 800 ? 3.5 : this.points.length > 150 ? 5 : 7) * Math.min(1.6, Math.sqrt(this.view.scale));
    for (const point of seen) {
      if (pictures && pictured(point.kind)) { this.drawPicture(context, point); continue; }
      const [x, y] = this.place(point);
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fillStyle = this.colour(point.kind);
      context.globalAlpha = 0.78;
      context.fill();
      context.globalAlpha = 1;
      context.strokeStyle = this.colours.sheet;
      context.lineWidth = 1;
      context.stroke();
    }
    this.drawGroups(context);
    if (this.at) this.ring(context, this.at);
    if (this.lasso && this.lasso.length) this.drawLasso(context);
    this.stage.dataset.pictures = pictures ? 'yes' : 'no';
  }

  drawPicture(context, point) {
    const [x, y] = this.place(point), side = PICTURE, image = this.image(point);
    context.save();
    context.beginPath();
    context.roundRect(x - side / 2, y - side / 2, side, side, 7);
    context.fillStyle = this.colour(point.kind);
    context.fill();
    context.clip();
    if (image.complete && image.naturalWidth) context.drawImage(image, x - side / 2, y - side / 2, side, side);
    context.restore();
  }

  image(point) {
    const known = images.get(point.id);
    if (known) { images.delete(point.id); images.set(point.id, known); return known; }
    const image = new Image();
    image.src = pictureOf({ id: point.id, modality: point.kind, thumbnail: 'v1/items/' + point.id + '/thumbnail' });
    image.addEventListener('load', () => this.later());
    images.set(point.id, image);
    if (images.size > KEPT_IMAGES) images.delete(images.keys().next().value);
    return image;
  }

  /** The names of groups in the middle of their items, the largest first; what would overlap is left out. */
  drawGroups(context) {
    const places = new Map(this.points.map(point => [point.id, point])), taken = [];
    context.font = '600 13px system-ui, sans-serif';
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (const group of this.groups) {
      const inside = group.ids.map(id => places.get(id)).filter(Boolean);
      if (inside.length < 2 || !group.name) continue;
      const middle = { x: median(inside.map(point => point.x)), y: median(inside.map(point => point.y)) };
      const [x, y] = this.place(middle), width = context.measureText(group.name).width + 18;
      const box = [x - width / 2, y - 13, x + width / 2, y + 13];
      if (taken.some(other => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
      taken.push(box);
      this.colour('text');
      context.fillStyle = this.colours.sheet;
      context.globalAlpha = 0.9;
      context.beginPath();
      context.roundRect(box[0], box[1], width, 26, 13);
      context.fill();
      context.globalAlpha = 1;
      context.fillStyle = this.colours.ink;
      context.fillText(group.name, x, y);
    }
  }

  ring(context, point) {
    const [x, y] = this.place(point), half = this.pictures && pictured(point.kind) ? PICTURE / 2 + 3 : 11;
    context.beginPath();
    if (half > 20) context.roundRect(x - half, y - half, 2 * half, 2 * half, 9);
    else context.arc(x, y, half, 0, 7);
    this.colour('text');
    context.strokeStyle = this.colours.accent;
    context.lineWidth = 3;
    context.stroke();
  }

  drawLasso(context) {
    context.beginPath();
    this.lasso.forEach(([x, y], step) => step ? context.lineTo(x, y) : context.moveTo(x, y));
    context.closePath();
    this.colour('text');
    context.strokeStyle = this.colours.accent;
    context.fillStyle = this.colours.accent;
    context.lineWidth = 2;
    context.stroke();
    context.globalAlpha = 0.14;
    context.fill();
    context.globalAlpha = 1;
  }

  // ---- Moving, choosing, circling ----

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(LARGEST, Math.max(1, this.view.scale * factor));
    this.view.x = x - (x - this.view.x) * scale / this.view.scale;
    this.view.y = y - (y - this.view.y) * scale / this.view.scale;
    this.view.scale = scale;
    if (scale === 1) this.view.x = this.view.y = 0;
    this.later();
  }

  near(x, y) {
    let best = null, least = Infinity;
    for (const point of this.seen()) {
      const [px, py] = this.place(point), reach = this.pictures && pictured(point.kind) ? PICTURE / 2 : HIT;
      const distance = Math.hypot(px - x, py - y);
      if (distance <= reach * 1.2 && distance < least) { best = point; least = distance; }
    }
    return best;
  }

  showTip(point) {
    this.at = point;
    this.tip.hidden = !point;
    this.later();
    if (!point) return;
    const [x, y] = this.place(point);
    const picture = pictured(point.kind) && !this.pictures ? make('img', { src: 'v1/items/' + point.id + '/thumbnail', alt: '' }) : icon(point.kind);
    this.tip.replaceChildren(picture, make('span', { dir: 'auto' }, point.name));
    this.tip.style.left = Math.min(Math.max(x, 74), this.width - 74) + 'px';
    this.tip.style.top = (y < this.height / 2 ? y + 16 : y - 16) + 'px';
    this.tip.classList.toggle('above', y >= this.height / 2);
  }

  startLasso() {
    const on = this.lasso === null;
    this.lasso = on ? [] : null;
    this.lassoButton.setAttribute('aria-pressed', String(on));
    this.canvas.classList.toggle('circling', on);
    say(on ? 'Draw a circle around the items that you want to see.' : '');
    this.later();
  }

  endLasso() {
    const inside = this.points.filter(point => !this.hiddenKinds.has(point.kind) && within(this.place(point), this.lasso)).map(point => point.id);
    this.startLasso();
    if (!inside.length) { say('Nothing lies inside.'); return; }
    go({ ...state(), view: 'library', id: inside.slice(0, MOST_CHOSEN).map(String), item: null });
    if (inside.length > MOST_CHOSEN) say('The first ' + MOST_CHOSEN + ' of ' + number(inside.length) + ' items are shown.');
  }

  listen() {
    const { canvas } = this, fingers = new Map();
    let moved = false, apart = 0;
    const at = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener('wheel', event => {
      if (!event.ctrlKey && this.view.scale === 1 && event.deltaY > 0) return;  // nothing to zoom out of: let the page scroll
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, ...at(event));
    }, { passive: false });
    canvas.addEventListener('pointerdown', event => {
      fingers.set(event.pointerId, at(event));
      moved = false;
      canvas.setPointerCapture(event.pointerId);
      if (this.lasso) this.lasso = [at(event)];
    });
    canvas.addEventListener('pointermove', event => {
      const now = at(event), before = fingers.get(event.pointerId);
      if (!before) { this.showTip(this.near(...now)); return; }
      fingers.set(event.pointerId, now);
      if (this.lasso) { this.lasso.push(now); this.later(); return; }
      if (fingers.size > 1) {
        const [one, other] = [...fingers.values()], distance = Math.hypot(one[0] - other[0], one[1] - other[1]);
        if (apart) this.zoom(distance / apart, (one[0] + other[0]) / 2, (one[1] + other[1]) / 2);
        apart = distance;
        moved = true;
        return;
      }
      if (!moved && Math.hypot(now[0] - before[0], now[1] - before[1]) < 3) { fingers.set(event.pointerId, before); return; }
      moved = true;
      this.view.x += now[0] - before[0];
      this.view.y += now[1] - before[1];
      this.showTip(null);
    });
    canvas.addEventListener('pointerup', event => {
      fingers.delete(event.pointerId);
      apart = 0;
      if (this.lasso && this.lasso.length > 2) { this.endLasso(); return; }
      const point = !moved && this.near(...at(event));
      if (point) go({ item: point.id });
    });
    canvas.addEventListener('pointerleave', () => { if (document.activeElement !== canvas) this.showTip(null); });
    canvas.addEventListener('keydown', event => this.key(event));
    canvas.addEventListener('focus', () => { if (!this.at && canvas.matches(':focus-visible')) this.showTip(this.seen()[0]); });
  }

  key(event) {
    const factor = { '+': 1.6, '=': 1.6, '-': 1 / 1.6, 0: 0 }[event.key];
    if (factor !== undefined) { event.preventDefault(); this.zoom(factor, ...(this.at ? this.place(this.at) : [])); return; }
    if (event.key === 'Enter' && this.at) { event.preventDefault(); go({ item: this.at.id }); return; }
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const from = this.at ? this.place(this.at) : [0, 0];
    let best = null, least = Infinity;
    for (const point of this.seen()) {
      if (point === this.at) continue;
      const [x, y] = this.place(point), dx = x - from[0], dy = y - from[1];
      const ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
      if (ahead <= 0 || aside > 2 * ahead || ahead + 2 * aside >= least) continue;
      least = ahead + 2 * aside;
      best = point;
    }
    if (!best) return;
    this.showTip(best);
    this.told.textContent = best.name + ', ' + singular(best.kind);
  }
}

const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Whether a place lies inside a closed line. */
function within([x, y], line) {
  let inside = false;
  for (let step = 0, before = line.length - 1; step < line.length; before = step, step += 1) {
    const [ax, ay] = line[step], [bx, by] = line[before];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
