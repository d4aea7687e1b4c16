"""What is asked of growth: sixteen requirements, bad input, names; each with the tests that hold it."""

import pytest

REQUIREMENTS = {
    "1 one record from every source, offline": [
        "grow/test_meta.py::test_all_formats_tell_the_same_fields",
        "grow/test_meta.py::test_a_sql_table_is_a_dataset",
        "grow/test_meta.py::test_the_hub_is_asked_through_its_api",
        "grow/test_meta.py::test_local_sources_open_no_socket",
        "grow/test_meta.py::test_a_folder_with_a_card_gives_all_its_configurations_at_once",
    ],
    "2 the same bytes": ["grow/test_propose_runs.py::test_two_hash_seeds_give_the_same_bytes"],
    "3 fields by their values": [
        "grow/test_meta.py::test_fields_are_hidden_by_their_values_never_by_a_part_of_their_name",
    ],
    "4 both modes, replies held to a form, salvage": [
        "backends/test_schemas.py::test_what_a_capable_model_proposes_is_kept",
        "backends/test_schemas.py::test_a_server_is_sent_the_schema_in_the_form_of_its_protocol",
        "backends/test_schemas.py::test_a_server_that_refuses_schemas_answers_every_call_without",
        "backends/test_vllm.py::test_closed_sets_and_grammars_are_structured_outputs",
        "test_openvino.py::test_a_reply_follows_its_grammar",
        "grow/test_proposals.py::test_the_grammar_names_the_fields",
        "grow/test_proposals.py::test_a_reply_cut_at_any_byte_keeps_its_whole_tasks",
    ],
    "5 nothing is paid twice, budgets, the dry run": [
        "grow/test_bad_datasets.py::"
        "test_killed_hard_after_any_call_the_same_command_makes_exactly_the_others",
        "grow/test_propose_runs.py::test_a_killed_run_makes_the_calls_that_are_left",
        "grow/test_propose_runs.py::test_a_budget_stops_cleanly_and_the_run_goes_on",
        "grow/test_propose_runs.py::test_the_dry_run_is_close_to_what_is_spent",
    ],
    "6 a reason for each task that goes": [
        "grow/test_proposals.py::test_what_is_no_task_has_its_reason",
        "grow/test_proposals.py::test_each_fault_of_a_task_has_its_reason",
        "grow/test_proposals.py::test_rows_speak_against_tasks",
        "grow/test_propose_runs.py::test_replies_with_faults_are_dropped_with_their_reasons",
        "backends/test_schemas.py::test_examples_of_the_prompt_are_no_tasks",
    ],
    "7 duplicates at three levels": [
        "grow/test_proposals.py::test_duplicates_are_those_of_a_brute_force_search",
        "grow/test_proposals.py::test_of_thousands_all_that_are_near_are_found",
        "grow/test_proposals.py::test_planted_duplicates_are_counted",
        "grow/test_proposals.py::test_data_under_two_names_is_one_and_two_datasets_are_two",
    ],
    "8 families": [
        "grow/test_proposals.py::test_families",
        "grow/test_proposals.py::test_a_cap_raises_the_effective_number_of_families_whatever_the_order",
        "grow/test_propose_runs.py::test_the_family_cap_is_reported",
    ],
    "9 closed sets of answers": [
        "grow/test_meta.py::test_closed_sets_are_told_from_all_rows",
        "grow/test_meta.py::test_class_names_in_the_file_are_used",
        "grow/test_proposals.py::test_a_small_lopsided_set_is_lopsided",
        "grow/test_instances.py::test_answers_outside_the_closed_set_are_dropped_and_spelled_alike",
    ],
    "10 lists, objects and paths": [
        "grow/test_instances.py::test_lists_of_texts_are_read_back",
        "grow/test_instances.py::test_objects_are_read_back",
        "grow/test_instances.py::test_nested_objects_are_read_back",
        "grow/test_instances.py::test_values_are_found_by_path",
    ],
    "11 the budget never cuts the question": [
        "grow/test_instances.py::test_the_budget_never_cuts_the_question_or_the_options",
        "grow/test_instances.py::test_only_what_cannot_fit_is_dropped",
    ],
    "12 licences": [
        "grow/test_proposals.py::test_licences_have_spdx_names",
        "grow/test_proposals.py::test_the_licence_policy",
        "grow/test_proposals.py::test_a_policy_can_be_told_names_and_looks_at_the_lineage",
        "grow/test_propose_runs.py::test_offline_without_a_model",
    ],
    "13 growth by deltas": [
        "grow/test_registry.py::test_adding_one_dataset_touches_only_its_tasks",
        "grow/test_registry.py::test_removing_retracts_every_row_and_the_old_version_keeps_them",
        "grow/test_registry.py::test_a_diff_says_what_and_why_in_both_directions",
        "grow/test_registry.py::test_killed_at_every_write_point_there_is_the_old_version_or_the_new",
        "grow/test_registry.py::test_selection_goes_on_from_what_was_selected_before",
    ],
    "14 replay": [
        "grow/test_replay.py::test_scores_are_those_of_the_whole_matrices",
        "grow/test_replay.py::test_the_order_of_tasks_does_not_matter_and_ties_go_by_id",
        "grow/test_replay.py::test_k_center_takes_the_farthest_from_the_new_tasks_and_from_each_other",
        "grow/test_replay.py::test_herding_keeps_the_running_mean_near_the_mean",
        "grow/test_replay.py::test_the_distance_is_within_its_blur_of_the_best_assignment",
        "grow/test_replay.py::test_no_budget_is_overspent_and_nothing_that_fits_is_left",
    ],
    "15 what is forgotten and gained": [
        "grow/test_continual.py::test_the_published_backward_transfers_come_out",
        "grow/test_continual.py::test_forgetting_is_held_against_the_best_stage_before",
        "grow/test_continual.py::test_what_is_found_and_shown",
        "grow/test_continual.py::test_all_strategies_read_equally_many_tokens",
        "grow/test_continual_train.py::test_every_stage_goes_on_from_the_one_before",
    ],
    "16 rating by people and by a judge": [
        "grow/test_propose_runs.py::test_a_sheet_is_written_rated_and_read",
        "grow/test_propose_runs.py::test_what_is_no_sheet_is_refused",
    ],
    "bad input: fields, nulls, images, width, names, classes, cards, licences": [
        "grow/test_bad_datasets.py::test_no_dataset_is_too_bad_for_the_others",
        "grow/test_bad_datasets.py::test_no_prompt_names_more_fields_than_fit",
        "grow/test_meta.py::test_odd_tables",
        "grow/test_meta.py::test_ten_thousand_columns",
        "grow/test_meta.py::test_a_card_that_lies_is_noted",
        "grow/test_instances.py::test_a_class_of_minus_one_is_no_answer",
    ],
    "bad input: a reply cut at every byte": [
        "grow/test_proposals.py::test_a_reply_cut_at_any_byte_keeps_its_whole_tasks",
    ],
    "bad input: a gated dataset, no network": [
        "grow/test_meta.py::test_the_hub_is_asked_through_its_api",
        "grow/test_bad_datasets.py::test_without_a_network_the_hub_is_an_error_in_one_sentence",
    ],
    "name: grow propose": [
        "grow/test_propose_runs.py::test_offline_without_a_model",
        "backends/test_schemas.py::test_what_a_capable_model_proposes_is_kept",
    ],
    "name: grow check": ["grow/test_propose_runs.py::test_proposals_made_elsewhere_are_checked"],
    "name: grow add, remove, diff, list": [
        "grow/test_registry.py::test_the_commands_print_and_exit",
        "grow/test_registry.py::test_a_diff_is_that_of_the_last_two_versions_if_none_are_named",
    ],
    "name: grow replay": ["grow/test_replay.py::test_the_command_replays_rows_of_the_registry"],
}


@pytest.mark.parametrize("what", REQUIREMENTS)
def test_what_is_asked_for_has_its_tests(what, is_a_test):
    for one in REQUIREMENTS[what]:
        assert is_a_test(one), one


def test_all_sixteen_are_there():
    numbers = [what.split()[0] for what in REQUIREMENTS]
    assert [number for number in numbers if number.isdigit()] == [str(n) for n in range(1, 17)]
