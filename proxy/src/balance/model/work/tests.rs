use super::*;

const MS: u64 = 1_000_000;

fn alone(now: u64, work: &Work) -> f64 {
    Comparison::new(now, [work].into_iter()).work(now, work)
}

fn said(waiting: u32, running: u32, kv_usage: f32, prompt_tokens: Option<u64>) -> LoadReport {
    LoadReport {
        waiting: Some(waiting),
        running: Some(running),
        kv_usage: Some(kv_usage),
        prompt_tokens,
    }
}

#[test]
fn a_request_is_its_prompt_until_it_is_read_and_then_a_stream() {
    let work = Work::default();
    let mut first = Task::begin(&work, MS, 5000);
    let second = Task::begin(&work, MS, 300);
    assert_eq!((work.prompt_tokens(), work.streams()), (5300, 0));
    first.first_token(&work, 501 * MS);
    first.first_token(&work, 900 * MS);
    assert_eq!((work.prompt_tokens(), work.streams()), (300, 1));
    assert_eq!(work.own(), 300.0 + STREAM_TOKENS);
    assert_eq!(work.rate(), Some(10_000.0));
    second.end(&work);
    first.end(&work);
    assert_eq!(work.own(), 0.0);
    assert_eq!(work.waiting.load(Relaxed), 0);
}

#[test]
fn a_report_counts_what_others_sent_and_what_is_sent_since_counts_at_once() {
    let work = Work::default();
    let _own = Task::begin(&work, MS, 1000);
    work.report(MS, &said(3, 2, 0.5, Some(6000)));
    let before = alone(MS, &work);
    assert_eq!(before, 6000.0 + 2.0 * STREAM_TOKENS + KV_TOKENS);
    let later = Task::begin(&work, MS, 700);
    assert_eq!(alone(MS, &work), before + 700.0);
    later.end(&work);
    // More of our own than the report knows: nothing is below nothing.
    let _more = Task::begin(&work, MS, 9000);
    work.report(MS, &said(0, 0, 0.0, Some(6000)));
    assert_eq!(alone(MS, &work), 10_000.0);
}

#[test]
fn waiting_requests_stand_for_mean_prompts_where_tokens_are_not_reported() {
    let work = Work::default();
    work.report(MS, &said(2, 0, 0.0, None));
    assert_eq!(alone(MS, &work), 2.0 * f64::from(INITIAL_PROMPT));
}

#[test]
fn unknown_is_the_mean_and_old_reports_become_unknown() {
    let (busy, idle, unknown) = (Work::default(), Work::default(), Work::default());
    busy.report(1000 * MS, &said(0, 0, 0.0, Some(8000)));
    idle.report(1000 * MS, &said(0, 0, 0.0, Some(0)));
    unknown.report(
        1000 * MS,
        &LoadReport {
            kv_usage: Some(0.1),
            ..LoadReport::default()
        },
    );
    let works = |now: u64| {
        let all = [&busy, &idle, &unknown];
        let compared = Comparison::new(now, all.into_iter());
        all.map(|each| compared.work(now, each))
    };
    assert_eq!(works(1000 * MS), [8000.0, 0.0, 4000.0]);
    let [busy_later, idle_later, _] = works(1300 * MS);
    assert!((busy_later - 4000.0 * (1.0 + (-1.0_f64).exp())).abs() < 1.0);
    assert!((busy_later + idle_later - 8000.0).abs() < 1.0);
    assert_eq!(works(11_000 * MS), [0.0; 3], "nothing is known of any");
}

#[test]
fn a_full_cache_is_work_and_not_infinitely_much() {
    let work = Work::default();
    let mut last = -1.0;
    for usage in [0.0, 0.5, 0.9, 0.98, 1.0, f32::INFINITY] {
        work.report(MS, &said(0, 0, usage, None));
        let now = alone(MS, &work);
        assert!(
            now >= last && now <= 99.0 * KV_TOKENS + 1.0,
            "{usage}: {now}"
        );
        last = now;
    }
}
