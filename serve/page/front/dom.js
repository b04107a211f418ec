// Making and finding elements. Text enters the page as text: nothing here, or anywhere, turns text into HTML.

const SVG = 'http://www.w3.org/2000/svg';

export const find = (selector, from = document) => from.querySelector(selector);
export const all = (selector, from = document) => [...from.querySelectorAll(selector)];

/** A tag, its properties (those that the element has not become attributes) and children; null children are left out. */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key in made && !key.includes('-') && key !== 'list' && key !== 'form') made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}

/** The same for SVG; every property becomes an attribute. */
export function draw(tag, properties = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** One of the page's icons by name; kinds of one's own have the icon of a file. */
export function icon(name) {
  const known = document.getElementById('i-' + name) ? name : 'file';
  return draw('svg', { class: 'icon', 'aria-hidden': 'true' }, draw('use', { href: '#i-' + known }));
}

export function button(label, act, className = '', iconName = null) {
  const made = make('button', { type: 'button', className }, iconName ? icon(iconName) : null, label);
  made.addEventListener('click', act);
  return made;
}

/** A button that is an icon only, with its name for screen readers and as a tip. */
export function iconButton(name, label, act, className = 'round') {
  const made = make('button', { type: 'button', className, title: label, 'aria-label': label }, icon(name));
  made.addEventListener('click', act);
  return made;
}

/** What stands in the middle of the page where there is nothing else: a title, a sentence, and what can be done. */
export function panel(className, title, text, ...more) {
  return make('div', { className: 'panel ' + className }, make('h2', {}, title), text ? make('p', {}, text) : null, ...more);
}

/** A problem in words, with its technical details behind a fold. */
export function problemPanel(problem, ...more) {
  return panel('problem', problem.title, problem.text, ...more, details(problem));
}

export function details(problem) {
  if (!problem.detail) return null;
  return make('details', { className: 'fold' }, make('summary', {}, 'Technical details'), make('pre', { tabIndex: 0 }, problem.detail));
}

/** Says something at the top of the page until it is dismissed; `actions` are {label, act}. */
export function notify(title, text = '', actions = [], problem = null) {
  const notice = make('div', { className: 'notice' }, make('p', {}, make('b', {}, title + (text ? '. ' : '')), text));
  if (problem) notice.append(details(problem) || '');
  for (const action of actions) notice.append(button(action.label, () => { notice.remove(); action.act(); }, 'quiet-button'));
  notice.append(iconButton('close', 'Dismiss', () => notice.remove()));
  find('.notices').append(notice);
  return notice;
}

/** Says how it stands, for eyes and screen readers. */
export function say(text) {
  find('.status').textContent = text;
}

let styling = null;

/** Loads the look of what is not seen at first. */
export function styles() {
  styling ||= new Promise(resolve => {
    const link = make('link', { rel: 'stylesheet', href: new URL('more.css', import.meta.url).href });
    link.addEventListener('load', resolve);
    link.addEventListener('error', resolve);
    document.head.append(link);
  });
  return styling;
}

/** Asks in a dialog; the promise gives the value of the chosen answer, or null where it was closed. */
export function question(title, content, answers) {
  const dialog = find('.question');
  return new Promise(resolve => {
    let chosen = null;
    const buttons = answers.map(({ label, value, className }) => button(label, () => { chosen = value; dialog.close(); }, className || 'secondary'));
    dialog.setAttribute('aria-label', title);
    dialog.replaceChildren(make('h2', {}, title), ...[content].flat().filter(Boolean), make('div', { className: 'answers' }, ...buttons));
    dialog.addEventListener('close', () => { dialog.replaceChildren(); resolve(chosen); }, { once: true });
    dialog.showModal();
  });
}
