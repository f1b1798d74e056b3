// Checks objects of external-secrets.io against its published API: standard input is {"documents": […]}, standard output the list of their kinds. What
// is missing or of a wrong type is told; a field that is not known is not noticed.

import { readFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'

// Where run.sh has installed it.
const models = pathToFileURL(`${process.env.CLIENTS}/node_modules/@kubernetes-models/external-secrets/`)
const given = JSON.parse(await readFile('/dev/stdin', 'utf8'))
const kinds = []
for (const document of given.documents) {
  const model = await import(new URL(`${document.apiVersion}/${document.kind}.js`, models))
  new model[document.kind](document).validate()
  kinds.push(document.kind)
}
console.log(JSON.stringify(kinds))
