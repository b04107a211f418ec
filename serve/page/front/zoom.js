// A picture that can be enlarged and moved: wheel, pinch, double click, drag, and the keys + - 0.

const LARGEST = 12, STEP = 1.5;

export function zoomable(stage, image) {
  const view = { x: 0, y: 0, scale: 1 };
  const fingers = new Map();
  let apart = 0;
  const apply = () => {
    const limit = side => Math.max(0, (view.scale - 1) * side / 2);
    view.x = Math.max(-limit(stage.clientWidth), Math.min(limit(stage.clientWidth), view.x));
    view.y = Math.max(-limit(stage.clientHeight), Math.min(limit(stage.clientHeight), view.y));
    for (const layer of stage.querySelectorAll('.whole, .overlay')) layer.style.transform = 'translate(' + view.x + 'px, ' + view.y + 'px) scale(' + view.scale + ')';
    stage.classList.toggle('enlarged', view.scale > 1);
    stage.dataset.zoom = view.scale.toFixed(2);
  };
  const zoom = (factor, event = null) => {
    const box = stage.getBoundingClientRect();
    const x = event ? event.clientX - box.left - box.width / 2 : 0, y = event ? event.clientY - box.top - box.height / 2 : 0;
    const scale = Math.max(1, Math.min(LARGEST, view.scale * factor));
    view.x = x - (x - view.x) * scale / view.scale;
    view.y = y - (y - view.y) * scale / view.scale;
    view.scale = scale;
    apply();
  };
  stage.tabIndex = 0;
  stage.setAttribute('role', 'group');
  stage.setAttribute('aria-label', 'Preview: + and - enlarge and reduce it');
  stage.onwheel = event => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event); };
  stage.ondblclick = event => zoom(view.scale > 1 ? 0 : 3, event);
  stage.onkeydown = event => {
    const factor = { '+': STEP, '=': STEP, '-': 1 / STEP, 0: 0 }[event.key];
    if (factor === undefined) return;
    event.preventDefault();
    zoom(factor);
  };
  stage.onpointerdown = event => {
    if (stage.classList.contains('selecting') || event.target.closest('button, .box')) return;
    fingers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
  };
  stage.onpointermove = event => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, event);
    if (fingers.size === 1) {
      view.x += event.clientX - before.clientX;
      view.y += event.clientY - before.clientY;
      apply();
      return;
    }
    const [one, other] = [...fingers.values()];
    const distance = Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    if (apart) zoom(distance / apart, { clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2 });
    apart = distance;
  };
  stage.onpointerup = stage.onpointercancel = event => { fingers.delete(event.pointerId); apart = 0; };
  image.draggable = false;
  apply();
}
