//! Who may talk to whom.

use crate::differential::case::{Case, Client, get, grpc};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::plain("mtls downstream")
            .ask(get("/").by(Client::Right), "200 - any a")
            .ask(get("/").by(Client::Right).http2(), "200 - any a")
            .ask(
                get("/").by(Client::Right).header("x-forwarded-client-cert", "URI=forged"),
                "200 - any a",
            )
            .ask(get("/").by(Client::Nobody), "no answer")
            .ask(get("/").by(Client::OtherAccount), "no answer")
            .ask(get("/").by(Client::OtherAuthority), "no answer")
            .ask(get("/").by(Client::Expired), "no answer")
            .ask(get("/").on("mtls"), "no answer"),
        Case::new(
            "tls upstream",
            "{routes: [
            {name: right, match: {path: /right}, route: {cluster: tls}},
            {name: san, match: {path: /san}, route: {cluster: tls-wrong-san}},
            {name: h2, match: {path: /h2}, route: {cluster: tls-h2}},
            {name: mutual, match: {path: /mutual}, route: {cluster: tls-mutual}},
            {name: without, match: {path: /without}, route: {cluster: tls-mutual-without}},
            {name: stranger, match: {path: /stranger}, route: {cluster: tls-stranger}},
            {name: expired, match: {path: /expired}, route: {cluster: tls-expired}},
            {name: plain, match: {path: /plain}, route: {cluster: tls-to-plain}},
            {name: grpc, match: {prefix: /test.Echo}, route: {cluster: tls-h2}}]}",
        )
        .ask(get("/right"), "200 - right tls")
        .ask(get("/san"), "503 UF san tls-wrong-san")
        .ask(get("/h2"), "200 - h2 tls-h2")
        .ask(get("/mutual"), "200 - mutual tls-mutual")
        .ask(get("/stranger"), "503 UF stranger tls-stranger")
        .ask(get("/expired"), "503 UF expired tls-expired")
        .ask(get("/plain"), "503 UF plain tls-to-plain")
        .ask(grpc("x"), "200 - grpc tls-h2"),
    ]
}
