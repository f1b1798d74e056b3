// Introspects tokens with openid-client, a third-party library.
//
// stdin: {url, issuer, client_id, client_secret, tokens}; stdout: a list of {status, body} in the order of the tokens. There is no body where the
// library reports an error.

import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

// run.sh has installed it there.
const require = createRequire(`${process.env.CLIENTS}/package.json`)
const client = await import(pathToFileURL(require.resolve('openid-client')))

const given = JSON.parse(await readFile('/dev/stdin', 'utf8'))
const config = new client.Configuration(
  { issuer: given.issuer, introspection_endpoint: given.url },
  given.client_id,
  {},
  client.ClientSecretBasic(given.client_secret),
)
// The tests use plain HTTP on loopback.
client.allowInsecureRequests(config)

const answers = []
for (const token of given.tokens) {
  try {
    const body = await client.tokenIntrospection(config, token, { token_type_hint: 'access_token' })
    answers.push({ status: 200, body })
  } catch (error) {
    answers.push({ status: error.status ?? error.cause?.status, error: error.code ?? error.name })
  }
}
process.stdout.write(JSON.stringify(answers))
