// Requests to the program that serves this page; every one holds the token of its address.

const token = new URLSearchParams(location.search).get("token") || "";

export class ApiError extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

export function address(path, parameters = {}) {
  const query = new URLSearchParams({ ...parameters, token });
  return `${path}?${query}`;
}

export async function ask(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters);
  const answer = await fetch(`${path}?${query}`, { headers: { "x-tsp-token": token }, signal });
  if (!answer.ok) throw await failure(answer);
  return answer;
}

export async function askJson(path, parameters = {}, signal = undefined) {
  return (await ask(path, parameters, signal)).json();
}

export async function send(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "x-tsp-token": token, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

async function failure(answer) {
  try {
    return new ApiError(answer.status, await answer.json());
  } catch {
    return new ApiError(answer.status, {});
  }
}
