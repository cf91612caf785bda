import {memo, useEffect, useRef, useState} from 'react';
import {Avatar, byName, Label, PriorityIcon, StatusIcon, Time} from './bits.jsx';
import {hrefOf} from './route.mjs';

const FLASH_MS = 1200;

/** True for a moment after `value` has changed: changes by others catch the eye. */
function useFlash(value) {
  const before = useRef(value);
  const [on, setOn] = useState(false);
  useEffect(() => {
    if (before.current === value) return;
    before.current = value;
    setOn(true);
    const timer = setTimeout(() => setOn(false), FLASH_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return on;
}

export const Row = memo(function Row({issue, open}) {
  const labels = issue.labels.map(l => l.id).join();
  const flash = useFlash(`${issue.title}|${issue.status}|${issue.priority}|${issue.assigneeID}|${labels}`);
  return (
    <li className={flash ? 'flash' : ''}>
      <a href={hrefOf({issue: issue.id})} aria-current={open ? 'true' : undefined} data-issue={issue.id}>
        <PriorityIcon priority={issue.priority} />
        <code>
          {issue.project?.key}-{issue.num}
        </code>
        <StatusIcon status={issue.status} />
        <span className="title">{issue.title}</span>
        <span className="labels">
          {byName(issue.labels).map(l => (
            <Label key={l.id} label={l} />
          ))}
        </span>
        <Avatar user={issue.assignee} />
        <Time at={issue.updatedAt} />
      </a>
    </li>
  );
});
