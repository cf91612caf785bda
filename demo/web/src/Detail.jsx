import {useEffect, useState} from 'react';
import {useQuery} from '@rocicorp/zero/react';
import {mutators} from '../../shared/mutators.mjs';
import {queries} from '../../shared/queries.mjs';
import {Avatar, Time} from './bits.jsx';
import {useChange} from './change.mjs';
import {Comments} from './Comments.jsx';
import {Fields} from './Fields.jsx';
import {go} from './route.mjs';

export function Detail({id}) {
  const [issue, {type}] = useQuery(queries.issue.detail({id}), {ttl: '5m'});

  useEffect(() => {
    const escape = event => event.key === 'Escape' && go({issue: ''});
    addEventListener('keydown', escape);
    return () => removeEventListener('keydown', escape);
  }, []);

  return (
    <aside className="detail" aria-label="Issue">
      <header>
        <code>{issue ? `${issue.project?.key}-${issue.num}` : id}</code>
        <button className="plain" aria-label="Close" onClick={() => go({issue: ''})}>
          ×
        </button>
      </header>
      {issue ? (
        <div className="scroll">
          <Title issue={issue} />
          <p className="byline">
            <Avatar user={issue.creator} size={20} />
            <span>
              {issue.creator?.name ?? issue.creatorID} opened this <Time at={issue.createdAt} />, updated{' '}
              <Time at={issue.updatedAt} />
            </span>
          </p>
          <Fields issue={issue} />
          <Body issue={issue} />
          <Comments issue={issue} loading={type === 'unknown'} />
        </div>
      ) : (
        <p className="empty">{type === 'unknown' ? 'Loading …' : 'There is no such issue.'}</p>
      )}
    </aside>
  );
}

function Title({issue}) {
  const change = useChange();
  const [draft, setDraft] = useState();

  async function save() {
    if (draft === undefined) return;
    const kept = draft.trim() === issue.title || (await change(mutators.issue.setTitle({id: issue.id, title: draft})));
    if (kept) setDraft(undefined);
  }
  return (
    <textarea
      className="title-edit"
      aria-label="Title"
      rows={1}
      maxLength={200}
      value={draft ?? issue.title}
      onChange={e => setDraft(e.target.value.replace(/\n/g, ' '))}
      onBlur={save}
      onKeyDown={e => {
        if (e.key === 'Enter') {
          e.preventDefault();
          e.target.blur();
        } else if (e.key === 'Escape' && draft !== undefined) {
          e.stopPropagation();
          setDraft(undefined);
        }
      }}
    />
  );
}

function Body({issue}) {
  const change = useChange();
  const [draft, setDraft] = useState();
  if (draft === undefined) {
    return (
      <section className="body" aria-label="Description">
        {issue.body ? <p>{issue.body}</p> : <p className="empty">No description.</p>}
        <button className="plain" onClick={() => setDraft(issue.body ?? '')}>
          Edit
        </button>
      </section>
    );
  }
  const save = async () => {
    if (await change(mutators.issue.setBody({id: issue.id, body: draft}))) setDraft(undefined);
  };
  return (
    <section className="body" aria-label="Description">
      <textarea aria-label="Edit description" rows={8} value={draft} onChange={e => setDraft(e.target.value)} autoFocus />
      <div className="buttons">
        <button className="primary" onClick={save}>
          Save
        </button>
        <button onClick={() => setDraft(undefined)}>Cancel</button>
      </div>
    </section>
  );
}
