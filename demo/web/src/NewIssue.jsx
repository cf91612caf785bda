import {useEffect, useRef, useState} from 'react';
import {mutators} from '../../shared/mutators.mjs';
import {newID, useChange} from './change.mjs';
import {go} from './route.mjs';

export function NewIssue({projectID, projects, onClose}) {
  const change = useChange();
  const dialog = useRef(null);
  const [project, setProject] = useState(projectID ?? projects[0]?.id ?? '');
  const [title, setTitle] = useState('');
  const [body, setBody] = useState('');

  useEffect(() => {
    dialog.current.showModal();
    dialog.current.querySelector('input').focus();
  }, []);

  async function create(event) {
    event.preventDefault();
    const id = newID('i');
    if (await change(mutators.issue.create({id, projectID: project, title, body: body || null}))) {
      onClose();
      go({issue: id});
    }
  }
  return (
    <dialog ref={dialog} onClose={onClose} aria-label="New issue">
      <form onSubmit={create}>
        <h2>New issue</h2>
        <label>
          Project
          <select value={project} onChange={e => setProject(e.target.value)} required>
            {projects.map(p => (
              <option key={p.id} value={p.id}>
                {p.name}
              </option>
            ))}
          </select>
        </label>
        <label>
          Title
          <input required maxLength={200} value={title} onChange={e => setTitle(e.target.value)} />
        </label>
        <label>
          Description
          <textarea rows={6} value={body} onChange={e => setBody(e.target.value)} />
        </label>
        <div className="buttons">
          <button type="button" onClick={() => dialog.current.close()}>
            Cancel
          </button>
          <button className="primary" disabled={!title.trim()}>
            Create
          </button>
        </div>
      </form>
    </dialog>
  );
}
