"""The sixteen requirements of instruction pre-training, each with the tests that hold it."""

import pytest

REQUIREMENTS = {
    1: ("each step is a command with a manifest", [
        "pretraining/test_cast.py::test_the_command_and_its_rows_train",
        "train/test_sequences.py::test_a_synthesizer_learns_its_pairs_from_sequences",
        "pretraining/test_corpus.py::test_the_command_prints_what_there_is",
        "pretraining/test_examine.py::test_the_command",
        "pretraining/test_pretrain.py::test_the_command_prints_what_it_found",
    ]),
    2: ("the codec goes there and back", [
        "pretraining/test_pair_format.py::test_parse_takes_back_what_was_rendered",
        "pretraining/test_pair_format.py::test_whatever_follows_whole_pairs_they_are_salvaged",
        "pretraining/test_pair_format.py::test_each_malformed_piece_has_its_reason",
    ]),
    3: ("few-shot sequences of one dataset, loss on the pairs of all examples", [
        "pretraining/test_cast.py::test_sequences_hold_whole_texts_of_one_dataset_and_are_nearly_full",
        "train/test_sequences.py::test_the_mask_covers_the_pairs_of_every_example_and_nothing_else",
        "train/test_encode.py::test_the_loss_is_on_the_learned_parts_of_a_completion_and_on_no_other",
    ]),
    4: ("the scheduler is right for all sizes", [
        "pretraining/test_chains.py::test_every_text_is_in_one_chain_and_no_chain_is_longer_than_the_rounds",
        "pretraining/test_chains.py::test_the_sizes_at_which_upstream_fails",
        "pretraining/test_corpus.py::test_any_number_of_texts_in_any_number_of_rounds",
    ]),
    5: ("history by true tokens, the newest first", [
        "pretraining/test_chains.py::test_the_newest_examples_that_fit_are_shown_and_never_more",
        "pretraining/test_corpus.py::test_texts_longer_than_the_context_stay_raw",
    ]),
    6: ("any engine, resumed, failures apart", [
        "pretraining/test_corpus.py::test_engines_that_add_a_begin_token_get_none_from_us",
        "pretraining/test_corpus.py::test_texts_without_pairs_stay_raw_and_failures_stay_apart",
        "pretraining/test_corpus.py::test_a_budget_stops_and_the_same_command_goes_on",
        "pretraining/test_corpus_faults.py::test_killed_at_some_write_points",
    ]),
    7: ("wordings are data, linted, drawn apart", [
        "pretraining/test_chain_text.py::test_the_words_are_linted",
        "pretraining/test_chain_text.py::test_mode_and_turning_and_wording_are_drawn_apart",
        "pretraining/test_chain_text.py::test_the_right_option_stands_anywhere_in_the_first_question_too",
    ]),
    8: ("options and reasoning of every kind point at the right answer", [
        "pretraining/test_chain_text.py::test_no_wording_loses_a_text_a_question_or_an_answer",
        "pretraining/test_chain_text.py::test_an_answer_named_by_its_letter_is_the_right_option",
        "pretraining/test_chain_text.py::test_options_of_any_number_keep_the_answer_whatever_it_is",
        "templates/test_options.py::test_more_than_26_options",
        "templates/test_options.py::test_several_right_options",
    ]),
    9: ("filters", [
        "curate/test_filters.py::test_default_filters_keep_the_good_and_name_the_bad",
        "curate/test_language.py::"
        "test_planted_answers_in_another_language_are_all_found_and_no_right_one_is_refused",
        "curate/test_personal.py::test_planted_items_are_found_wherever_they_stand",
        "test_verify.py::test_decisions_follow_the_thresholds_and_name_the_evidence",
        "pretraining/test_corpus_rows.py::test_what_is_asked_twice_of_a_text_is_asked_once",
    ]),
    10: ("token-exact mixtures, the same every time", [
        "pretraining/test_corpus.py::test_tuning_data_is_repeated_and_general_data_is_as_much_as_all_else",
        "pretraining/test_corpus.py::test_a_number_of_tokens_is_met",
        "pretraining/test_corpus.py::test_no_input_order_changes_a_byte",
        "pretraining/test_corpus.py::test_every_text_and_token_is_accounted_for",
    ]),
    11: ("a synthesizer is evaluated", [
        "evaluate/test_matching.py::test_no_matching_gains_more",
        "pretraining/test_examine.py::test_a_flawless_synthesizer_has_full_marks_everywhere",
        "pretraining/test_examine.py::"
        "test_datasets_are_seen_or_unseen_by_their_ids_and_texts_of_both_are_only_seen",
        "pretraining/test_examine.py::test_marks_and_differences_are_those_of_the_replies",
    ]),
    12: ("no item of a benchmark in pairs or texts", [
        "pretraining/test_corpus.py::test_an_item_of_an_evaluation_set_is_in_no_row",
        "pretraining/test_corpus.py::test_a_pair_that_is_an_item_of_an_evaluation_set_is_dropped",
        "pretraining/test_cast.py::test_an_item_of_an_evaluation_set_is_in_no_sequence",
    ]),
    13: ("the report of a corpus", [
        "pretraining/test_figures.py::test_the_page_says_what_the_pairs_are_like",
        "pretraining/test_figures.py::"
        "test_the_divergence_is_the_entropy_of_the_mean_less_the_mean_entropy",
    ]),
    14: ("retention is reported by default", [
        "pretraining/test_pretrain.py::test_the_arms_are_held_against_each_other",
        "pretraining/test_pretrain.py::test_what_was_learned_is_added_to_an_instruct_model",
        "train/test_arithmetic.py::test_whole_models_are_added_tensor_by_tensor",
    ]),
    15: ("throughput, and prompts in the order of their beginnings", [
        "pretraining/test_chains.py::test_a_chain_goes_on_before_another_begins",
        "pretraining/test_figures.py::test_the_page_says_what_the_pairs_are_like",
    ]),
    16: ("any language", [
        "pretraining/test_corpus.py::test_texts_in_a_script_without_spaces",
        "evaluate/test_matching.py::test_question_and_answer_weigh_the_same",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("number", range(1, 17))
def test_a_requirement_has_its_tests(number, is_a_test):
    words, named = REQUIREMENTS[number]
    assert words
    assert named
    for one in named:
        assert is_a_test(one), one
