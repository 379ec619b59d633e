"""Applies objects to an API server: JSON on stdin, and on stdout a list of what went otherwise than it should.

{"server": URL, "token": ..., "made": [...], "taken": [...], "refused": [...]}: the first are made; the others only in a dry
run, with strict validation of fields.
"""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request

asked = json.load(sys.stdin)
# Made a moment ago, on loopback, by its own.
trust = ssl._create_unverified_context()


def call(method, path, body=None, kind="application/json"):
    request = urllib.request.Request(
        asked["server"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": "Bearer " + asked["token"], "content-type": kind},
    )
    with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
        return json.load(answer)


def until(what, ask, limit=120):
    end = time.monotonic() + limit
    while True:
        try:
            return ask()
        except (OSError, KeyError) as error:
            if time.monotonic() > end:
                raise RuntimeError("waited in vain for %s: %s" % (what, error))
            time.sleep(0.3)


def place(thing):
    version = thing["apiVersion"]
    root = "/apis/" + version if "/" in version else "/api/" + version
    resources = call("GET", root)["resources"]
    known = {one["kind"]: one for one in resources if "/" not in one["name"]}[thing["kind"]]
    if known["namespaced"]:
        root += "/namespaces/" + thing["metadata"].get("namespace", "default")
    return "%s/%s/%s" % (root, known["name"], thing["metadata"]["name"])


def apply(thing, dry):
    query = "?fieldManager=test&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry else "")
    at = until("the kind " + thing["kind"], lambda: place(thing))
    try:
        call("PATCH", at + query, thing, "application/apply-patch+yaml")
    except urllib.error.HTTPError as error:
        return "%d %s" % (error.code, error.read().decode()[:1000])
    return None


wrong = []
until("the API server", lambda: call("GET", "/api/v1"))
until("the namespace default", lambda: call("GET", "/api/v1/namespaces/default"))
for thing in asked["made"]:
    why = apply(thing, dry=False)
    if why:
        wrong.append([thing["kind"], thing["metadata"]["name"], why])
for thing in asked["taken"] + asked["refused"]:
    why = apply(thing, dry=True)
    if (why is None) == (thing in asked["refused"]):
        wrong.append([thing["kind"], thing["metadata"]["name"], why or "was taken"])
json.dump(wrong, sys.stdout)
