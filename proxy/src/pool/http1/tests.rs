#![allow(clippy::unwrap_used)]

mod connections;
mod exchanges;
mod framing;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::send;
use crate::http::body::{BodyError, Source};
use crate::http::replay::{Replay, RequestBody};
use crate::pool::{Destination, Failure, Path, Target};
use crate::runtime::Worker;
use crate::telemetry::Direction;

/// A server of one connection after the other, and how many there were.
async fn server<F, S>(serve: F) -> (SocketAddr, Rc<Cell<usize>>)
where
    F: Fn(TcpStream, usize) -> S + 'static,
    S: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(serve(stream, counted.get()));
        }
    });
    (address, count)
}

/// Answers each head with the same text.
async fn answers(answer: &'static str) -> (SocketAddr, Rc<Cell<usize>>) {
    server(move |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// A request's head. `None`: the connection was closed.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(text).unwrap())
}

fn request(method: &str, headers: &[(&str, &str)], body: Bytes) -> Request<RequestBody> {
    let mut request = Request::builder().method(method).uri("/x?y");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Replay::new(Source::whole(body)).body();
    request.body(body).unwrap()
}

fn target(address: SocketAddr) -> Target<'static> {
    Target {
        outside: None,
        limits: None,
        address: Destination::Ip(address),
        connect_timeout: Duration::from_secs(5),
        pool: Box::leak(Box::default()),
        peer: None,
        load: None,
    }
}

fn path<'a>(worker: &'a Rc<Worker>, target: &'a Target<'a>) -> Path<'a> {
    Path {
        worker,
        direction: Direction::Inbound,
        target,
        interim: None,
    }
}

async fn ask(
    worker: &Rc<Worker>,
    address: SocketAddr,
    request: Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    send(path(worker, &target(address)), || request).await
}

async fn get(worker: &Rc<Worker>, address: SocketAddr) -> Result<Response<Source>, Failure> {
    ask(worker, address, request("GET", &[], Bytes::new())).await
}

async fn text(response: Response<Source>) -> Result<String, BodyError> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

async fn local<F: Future<Output = ()>>(test: F) {
    let tasks = LocalSet::new();
    let test = tasks.run_until(test);
    tokio::time::timeout(Duration::from_secs(30), test)
        .await
        .unwrap();
}
