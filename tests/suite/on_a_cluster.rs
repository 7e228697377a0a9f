//! What is claimed of a state in files holds of one on a cluster: the same tests, run again with
//! the keys of a cluster in the place of files.

#[path = "../etcd/server.rs"]
#[allow(dead_code)]
mod server;

use std::process::Command;

use crate::sandbox::installed;
use crate::sandbox::keys::TEST_STORE;

/// The tests that name no file of a state.
const CLAIMS: [&str; 45] = [
    "answers::array_elements_have_two_spellings_and_errors_name_a_remedy",
    "answers::backups_are_listed_with_usable_names_and_reasons",
    "answers::the_programs_own_fields_cannot_be_set",
    "cli::a_hint_leads_to_the_same_state_in_another_shell",
    "cli::a_number_names_a_revision_and_no_part_of_a_date",
    "cli::an_empty_pattern_is_a_mistake_and_not_everything",
    "cli::a_writer_without_a_state_creates_nothing",
    "usage::errors_are_one_line_of_json_where_json_is_asked_for",
    "cli::get_answers_like_jq_and_its_exit_code_is_the_answer",
    "cli::set_makes_parents_appends_and_takes_several_at_once",
    "cli::update_binds_its_arguments",
    "cli::wait_returns_when_a_filter_becomes_true_and_9_if_it_does_not",
    "cli::watch_ends_when_its_reader_is_gone",
    "cli::watch_prints_a_line_for_each_revision",
    "conversions::a_byte_order_mark_before_any_input_is_skipped",
    "documents::a_change_that_alters_nothing_commits_nothing",
    "assignments::a_program_too_long_for_the_stack_is_refused_and_not_died_of",
    "documents::a_writers_own_values_for_our_fields_are_ignored",
    "documents::an_update_keeps_the_order_of_keys_even_where_jq_programs_would_not",
    "documents::bad_input_is_refused_with_4_and_the_state_stays_as_it_is",
    "assignments::jq_programs_assign_and_delete_as_in_jq",
    "assignments::programs_that_jq_refuses_are_refused_and_write_nothing",
    "documents::the_parsers_private_key_is_an_ordinary_key",
    "documents::writing_a_document_of_the_old_libraries_migrates_it",
    "hook_bounds::an_input_that_stays_open_does_not_block",
    "hook_bounds::an_unread_answer_does_not_block",
    "hook_bounds::whatever_comes_in_a_hook_ends_with_0_or_1",
    "hook_forms::a_changed_file_triggers_by_path_and_by_contents",
    "hook_forms::a_transition_with_an_approval_gate_is_suggested_until_the_gate_is_open",
    "hook_forms::skills_by_name_are_announced_by_priority_and_the_first_is_kept",
    "hook_forms::the_originals_rules_are_read_with_numeric_phases",
    "hooks::a_matching_prompt_is_announced_and_recorded_once",
    "hooks::a_skill_waits_for_the_files_that_it_needs",
    "hooks::a_use_that_failed_or_has_not_taken_place_gives_no_signal",
    "hooks::no_output_option_changes_the_answer_to_an_editor",
    "hook_setup::rules_to_begin_with_lead_through_six_phases",
    "jq::get_wait_and_watch_take_the_arguments_of_jq",
    "logs::a_status_names_the_log_that_is_used",
    "numbers::no_number_on_the_line_is_a_defect",
    "properties::keys_keep_their_order_and_nothing_else_changes",
    "properties::set_changes_its_path_and_nothing_else",
    "refusals::the_audit_log_has_a_line_for_each_commit_and_refusal_and_no_contents",
    "undo::an_undo_goes_back_one_revision_and_another_one_further",
    "undo::history_names_authors_and_changes_and_is_limited_by_number_and_time",
    "ways_on::a_restore_of_nothing_names_both_ways_to_say_what",
];

#[test]
fn what_is_claimed_of_files_holds_on_a_cluster() {
    if !installed("etcd") || !installed("etcdctl") {
        return;
    }
    let server = server::Server::start("http", &[]);
    let ran = Command::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .args(CLAIMS)
        .env(TEST_STORE, format!("etcd://127.0.0.1:{}", server.port))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{shown}");
    assert!(shown.contains(&format!("{} passed", CLAIMS.len())), "{shown}");
}
