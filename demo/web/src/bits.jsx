// Small pieces that several views show.
import {PRIORITIES} from '../../shared/schema.mjs';
import {ago, exact} from './time.mjs';

export const STATUS_NAMES = {open: 'Open', in_progress: 'In progress', done: 'Done', wontfix: 'Won’t fix'};

const STATUS_SHAPES = {
  open: <circle cx="8" cy="8" r="6" fill="none" strokeWidth="1.8" />,
  in_progress: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" strokeWidth="1.8" />
      <path d="M8 4.5a3.5 3.5 0 0 1 0 7z" stroke="none" fill="currentColor" />
    </>
  ),
  done: (
    <>
      <circle cx="8" cy="8" r="6.9" stroke="none" fill="currentColor" />
      <path d="m5 8.2 2.1 2.1L11 6.2" fill="none" strokeWidth="1.7" className="tick" />
    </>
  ),
  wontfix: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" strokeWidth="1.8" />
      <path d="m4 12 8-8" strokeWidth="1.8" />
    </>
  ),
};

export function StatusIcon({status}) {
  return (
    <svg className={`status status-${status}`} viewBox="0 0 16 16" width="16" height="16" stroke="currentColor" role="img">
      <title>{STATUS_NAMES[status] ?? status}</title>
      {STATUS_SHAPES[status]}
    </svg>
  );
}

export function PriorityIcon({priority}) {
  return (
    <svg className={`priority priority-${priority}`} viewBox="0 0 16 16" width="16" height="16" role="img">
      <title>{`Priority: ${PRIORITIES[priority] ?? priority}`}</title>
      {[1, 2, 3].map(n => (
        <rect key={n} x={n * 4 - 2} y={12 - n * 3} width="3" height={n * 3 + 1} rx="1" className={priority >= n ? 'on' : ''} />
      ))}
    </svg>
  );
}

function hue(text) {
  let h = 0;
  for (const c of text) h = (h * 31 + c.codePointAt(0)) % 360;
  return h;
}

export function Avatar({user, size = 22}) {
  if (!user) return <span className="avatar nobody" style={{width: size, height: size}} title="Nobody" />;
  const initials = user.name
    .split(' ')
    .slice(0, 2)
    .map(word => [...word][0])
    .join('');
  return (
    <span
      className="avatar"
      title={user.name}
      style={{width: size, height: size, fontSize: size * 0.42, background: `oklch(0.6 0.12 ${hue(user.id)})`}}
    >
      {initials}
    </span>
  );
}

export const byName = labels => [...labels].sort((a, b) => a.name.localeCompare(b.name));

export function Label({label, onRemove}) {
  return (
    <span className="label" style={{'--color': label.color ?? '#6b7280'}}>
      {label.name}
      {onRemove && (
        <button aria-label={`Remove label ${label.name}`} onClick={onRemove}>
          ×
        </button>
      )}
    </span>
  );
}

export const Time = ({at}) => (
  <time dateTime={new Date(at).toISOString()} title={exact(at)}>
    {ago(at)}
  </time>
);
