#![allow(clippy::unwrap_used)]

use super::*;

fn parse(name: &'static str, text: &str) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_str(text).unwrap());
    match name {
        "grpc-timeout" => grpc_timeout(&headers),
        _ => http_timeout(&headers),
    }
}

#[test]
fn grpc_timeouts() {
    let parse = |text| parse("grpc-timeout", text);
    assert_eq!(parse("1S"), Some(Duration::from_secs(1)));
    assert_eq!(
        parse("99999999H"),
        Some(Duration::from_secs(99_999_999 * 3600))
    );
    assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
    assert_eq!(parse("3u"), Some(Duration::from_micros(3)));
    for bad in ["", "S", "1", "1s", "100000000S", "-1S", "1.5S", " 1S"] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

#[test]
fn http_timeouts() {
    let parse = |text| parse("x-request-timeout-ms", text);
    assert_eq!(parse("1"), Some(Duration::from_millis(1)));
    assert_eq!(parse("2592000000"), Some(Duration::from_secs(30 * 86_400)));
    for bad in ["", "0", "-1", "1.5", "1s", " 1", "+1", "99999999999"] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_told_rounded_up() {
    let told = |grpc, left| {
        let mut headers = HeaderMap::new();
        tell(&mut headers, grpc, Instant::now() + left);
        let name = if grpc {
            "grpc-timeout"
        } else {
            "x-request-timeout-ms"
        };
        assert!(headers[name].is_sensitive());
        headers[name].to_str().unwrap().to_owned()
    };
    let ms = Duration::from_millis;
    assert_eq!(told(false, ms(1500)), "1500");
    assert_eq!(told(false, Duration::from_micros(1_500_001)), "1501");
    assert_eq!(told(false, Duration::ZERO), "1");
    assert_eq!(told(true, ms(1500)), "1500000u");
    assert_eq!(told(true, Duration::from_secs(100)), "100000m");
    assert_eq!(told(true, Duration::from_secs(200_000)), "200000S");
    assert_eq!(told(true, Duration::ZERO), "1u");
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", HeaderValue::from_static("9S"));
    tell(&mut headers, true, Instant::now() + ms(250));
    assert_eq!(grpc_timeout(&headers), Some(ms(250)), "not added, replaced");
}
