//! The page of a report in a real browser, with a real mouse and keyboard.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::chromium::Chromium;
use crate::report::hostile;
use crate::report_events::{Recording, many, recorded_hour};
use crate::sandbox::Sandbox;

const HOUR: Duration = Duration::from_secs(3600);
const SIZE: (u32, u32) = (1280, 720);

fn ago(length: Duration) -> SystemTime {
    SystemTime::now() - length
}

/// The page of these events.
fn page_of(recording: &Recording) -> (Sandbox, PathBuf) {
    let root = Sandbox::initialized();
    recording.write(&root);
    root.run("report -o report.html").expect(0);
    let page = root.file("report.html");
    (root, page)
}

/// A place of the chart at which the tip has these words in its title.
fn find(browser: &mut Chromium, words: &str) -> (f64, f64) {
    let script = format!(
        "(() => {{
          const chart = document.getElementById('chart'), tip = document.getElementById('tip');
          const box = chart.getBoundingClientRect();
          for (let y = box.top + 3; y < box.bottom; y += 6) {{
            for (let x = box.left; x < box.right; x += 4) {{
              chart.dispatchEvent(new PointerEvent('pointermove', {{ clientX: x, clientY: y }}));
              if (!tip.hidden && tip.firstChild.textContent.includes({words:?})) return [x, y];
            }}
          }}
          return null;
        }})()"
    );
    let place = browser.eval(&script);
    let at = |n: usize| place[n].as_f64().unwrap_or_else(|| panic!("{words} is not on the page"));
    (at(0), at(1))
}

/// The colours of the chart, and how many of its points have one.
fn is_drawn(browser: &mut Chromium) -> bool {
    let script = "(() => {
      const chart = document.getElementById('chart');
      const bytes = chart.getContext('2d').getImageData(0, 0, chart.width, chart.height).data;
      const seen = new Set();
      for (let n = 0; n < bytes.length; n += 4) seen.add(`${bytes[n]},${bytes[n+1]},${bytes[n+2]}`);
      return seen.size;
    })()";
    browser.eval(script).as_u64().unwrap() > 50
}

#[test]
fn a_recorded_hour_is_drawn_and_answers_mouse_and_keyboard() {
    let Some(mut browser) = Chromium::start(SIZE.0, SIZE.1) else { return };
    let (_root, page) = page_of(&recorded_hour(ago(HOUR)));
    browser.open(&page);
    assert!(is_drawn(&mut browser));
    assert!(
        browser.text("#summary").contains("waits timed out")
            || browser.text("#summary").contains("1 wait timed out")
    );
    for program in ["build.sh", "test.sh", "deploy.sh"] {
        assert!(browser.text("#legend").contains(program));
    }

    // The mouse hovers and clicks.
    let at = find(&mut browser, "test.sh (102) waited 11 min 40 s for deploy");
    browser.mouse("mouseMoved", at);
    assert!(browser.is_shown("#tip"));
    assert!(browser.text("#tip").contains("Waited for: build.sh (pid 101)"));
    browser.click(at);
    let details = browser.text("#details");
    assert!(
        details.contains("Blocked by") && details.contains("build.sh (101) held deploy"),
        "{details}"
    );
    browser.eval("document.querySelector('#details .link').click()");
    assert!(browser.text("#details h2").contains("build.sh (101) held deploy: released"));
    assert!(browser.text("#details").contains("Made wait"));
    let at = find(&mut browser, "Phase test");
    browser.click(at);
    let details = browser.text("#details");
    assert!(
        details.contains("unit tests pass") && details.contains(".phase: build → test"),
        "{details}"
    );
    browser.key("Escape");
    assert!(!browser.is_shown("#details"));
    for words in [
        "deploy.sh (103) held deploy: broken",
        "build.sh (101) held deploy: its owner died",
        "Guard migrate: failed and put back",
        "Restore of migrate",
        "Error: lock_timeout",
        "build.sh (101) held cache: end unknown",
        "Retries of curl: succeeded",
    ] {
        find(&mut browser, words);
    }

    // The keyboard moves, opens and closes.
    browser.eval("document.getElementById('chart').focus()");
    browser.key("Home");
    assert!(browser.text("#spoken").starts_with("phase. Phase build"));
    browser.key("ArrowRight");
    assert!(browser.text("#spoken").starts_with("phase. Phase test"));
    browser.key("Enter");
    assert!(browser.text("#details").contains("unit tests pass"));
    browser.key("ArrowDown");
    assert!(browser.text("#spoken").starts_with("tasks. Tasks: unit"));
    assert!(browser.text("#details h2").contains("Tasks: unit"), "what is open follows");
    browser.key("Escape");
    assert!(!browser.is_shown("#details") && !browser.is_shown("#tip"));
    browser.key("End");
    assert!(browser.text("#spoken").starts_with("tasks. Tasks: deploy"));
    let focus = browser.eval("document.activeElement.id");
    assert_eq!(focus, "chart");
    let style = browser.eval("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(style, "solid", "the focus is visible");

    // The table has every event.
    browser.eval("document.querySelector('#list').open = true");
    browser.eval("new Promise((done) => setTimeout(done))");
    let rows = browser.eval("document.querySelectorAll('#rows tr').length");
    assert_eq!(rows, browser.eval("Number(document.documentElement.dataset.marks)"));
    assert_eq!(browser.complaints, [] as [String; 0]);
}

#[test]
fn the_page_is_readable_in_any_width_and_theme() {
    let Some(mut browser) = Chromium::start(SIZE.0, SIZE.1) else { return };
    let (_root, page) = page_of(&recorded_hour(ago(HOUR)));
    browser.open(&page);
    let background = "getComputedStyle(document.body).backgroundColor";
    let mut seen = Vec::new();
    for theme in ["light", "dark"] {
        browser.prefer(theme);
        seen.push(browser.eval(background));
        for width in [1280, 800, 400] {
            browser.resize(width, 720);
            browser.eval("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))");
            let wide = "document.documentElement.scrollWidth <= window.innerWidth";
            assert_eq!(browser.eval(wide), true, "{theme}, {width} wide");
            assert!(is_drawn(&mut browser), "{theme}, {width} wide");
            keep_picture(&mut browser, &format!("{theme}-{width}"));
        }
    }
    assert_ne!(seen[0], seen[1]);
}

/// Keeps a picture in the directory that `REPORT_PICTURES` names, to be looked at.
fn keep_picture(browser: &mut Chromium, name: &str) {
    if let Some(dir) = std::env::var_os("REPORT_PICTURES") {
        let encoded = browser.picture();
        fs::write(PathBuf::from(dir).join(format!("{name}.png.base64")), encoded).unwrap();
    }
}

#[test]
fn hostile_names_stay_text_in_the_browser() {
    let Some(mut browser) = Chromium::start(SIZE.0, SIZE.1) else { return };
    let (_root, page) = page_of(&hostile(ago(HOUR)));
    browser.open(&page);
    let plain = "[...document.querySelectorAll('script, style, img, iframe, object, link')].length";
    assert_eq!(browser.eval(plain), 3);
    browser.eval("document.querySelector('#list').open = true");
    browser.eval("new Promise((done) => setTimeout(done))");
    let text = browser.text("#rows");
    assert!(text.contains("</script><script>alert(1)</script>"), "{text}");
    find(&mut browser, "<!--<script>");
    browser
        .eval("[...document.querySelectorAll('#rows button')].forEach((button) => button.click())");
    assert_eq!(browser.eval(plain), 3);
    // No request can leave, and no other script runs.
    let blocked = "(async () => {
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
      let sent = false;
      try { await fetch('data:text/plain,x'); sent = true; } catch {}
      return [window.ran === undefined, sent];
    })()";
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    assert_eq!(browser.eval(blocked), serde_json::json!([true, false]));
}

#[test]
fn the_newest_50_000_events_are_drawn() {
    let Some(mut browser) = Chromium::start(SIZE.0, SIZE.1) else { return };
    let root = Sandbox::initialized();
    let events = many(ago(3 * HOUR), 50_000);
    let timeline = pipeline_state::report::Timeline::of(
        &events.events(),
        &pipeline_state::report::Subject {
            root: "/many".into(),
            now: SystemTime::now(),
            since: None,
            held: Default::default(),
        },
    );
    let page = root.file("many.html");
    fs::write(&page, pipeline_state::report::page::html(&timeline)).unwrap();
    browser.open(&page);
    assert_eq!(timeline.events, 50_000);
    let marks = browser.eval("Number(document.documentElement.dataset.marks)");
    assert_eq!(marks, timeline.marks.len());
    assert!(is_drawn(&mut browser));
    assert!(browser.text("#summary").starts_with("50,000 events"));
    let drawn: Value = browser.eval("Number(document.documentElement.dataset.drawn)");
    println!("50,000 events, {marks} marks: drawn {drawn} ms after the page was opened");
    keep_picture(&mut browser, "many");
}
