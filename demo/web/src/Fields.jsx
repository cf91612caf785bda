import {useQuery} from '@rocicorp/zero/react';
import {mutators} from '../../shared/mutators.mjs';
import {queries} from '../../shared/queries.mjs';
import {PRIORITIES, STATUSES} from '../../shared/schema.mjs';
import {Avatar, byName, Label, PriorityIcon, STATUS_NAMES, StatusIcon} from './bits.jsx';
import {useChange} from './change.mjs';
import {Picker} from './Picker.jsx';
import {UserPicker} from './UserPicker.jsx';

const NOBODY = {id: 'none', text: 'Nobody'};

export function Fields({issue}) {
  const change = useChange();
  const [labels] = useQuery(queries.label.all(), {ttl: '10m'});
  const {id} = issue;
  const has = new Set(issue.labels.map(l => l.id));

  return (
    <dl className="fields">
      <dt>Status</dt>
      <dd>
        <Picker
          label="Set status"
          value={issue.status}
          onPick={status => change(mutators.issue.setStatus({id, status}))}
          options={STATUSES.map(s => ({
            id: s,
            text: STATUS_NAMES[s],
            node: (
              <>
                <StatusIcon status={s} /> {STATUS_NAMES[s]}
              </>
            ),
          }))}
        >
          <StatusIcon status={issue.status} /> {STATUS_NAMES[issue.status] ?? issue.status}
        </Picker>
      </dd>
      <dt>Priority</dt>
      <dd>
        <Picker
          label="Set priority"
          value={String(issue.priority)}
          onPick={priority => change(mutators.issue.setPriority({id, priority: Number(priority)}))}
          options={PRIORITIES.map((text, n) => ({
            id: String(n),
            text,
            node: (
              <>
                <PriorityIcon priority={n} /> {text}
              </>
            ),
          }))}
        >
          <PriorityIcon priority={issue.priority} /> {PRIORITIES[issue.priority] ?? issue.priority}
        </Picker>
      </dd>
      <dt>Assignee</dt>
      <dd>
        <UserPicker
          label="Set assignee"
          value={issue.assigneeID ?? NOBODY.id}
          extra={[NOBODY]}
          onPick={who => change(mutators.issue.assign({id, assigneeID: who === NOBODY.id ? null : who}))}
        >
          <Avatar user={issue.assignee} /> {issue.assignee?.name ?? 'Nobody'}
        </UserPicker>
      </dd>
      <dt>Labels</dt>
      <dd className="labels">
        {byName(issue.labels).map(l => (
          <Label key={l.id} label={l} onRemove={() => change(mutators.issue.removeLabel({id, labelID: l.id}))} />
        ))}
        <Picker
          label="Add label"
          onPick={labelID => change(mutators.issue.addLabel({id, labelID}))}
          options={labels.filter(l => !has.has(l.id)).map(l => ({id: l.id, text: l.name, node: <Label label={l} />}))}
        >
          +
        </Picker>
      </dd>
    </dl>
  );
}
