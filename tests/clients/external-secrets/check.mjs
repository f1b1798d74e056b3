// Checks objects of external-secrets.io against its published API. stdin: {"documents": […]}; stdout: the list of their kinds. It reports missing
// fields and wrong types, but not unknown fields.

import { readFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'

// run.sh has installed it there.
const models = pathToFileURL(`${process.env.CLIENTS}/node_modules/@kubernetes-models/external-secrets/`)
const given = JSON.parse(await readFile('/dev/stdin', 'utf8'))
const kinds = []
for (const document of given.documents) {
  const model = await import(new URL(`${document.apiVersion}/${document.kind}.js`, models))
  new model[document.kind](document).validate()
  kinds.push(document.kind)
}
console.log(JSON.stringify(kinds))
