"""The requirements of the mixture and of the evaluation (R1 to R34), each with the tests that hold it."""

import pytest

REQUIREMENTS = {
    1: ("pure Python, light import, local files with their hashes", [
        "test_layers.py::test_heavy_packages_stay_inside_backends_and_train",
        "test_cli.py::test_version_is_instant_and_plain",
        "mix/test_mix_recipe.py::test_counts_are_the_shares_and_the_manifest_says_so",
    ]),
    2: ("caps, proportions, temperature and scale apart; presets", [
        "mix/test_weights.py::test_nested_weights_multiply_along_the_tree",
        "mix/test_weights.py::test_a_cap_of_a_source_is_of_each_of_its_tasks",
        "mix/test_weights.py::test_temperature_is_the_power_of_capped_scaled_sizes",
        "mix/test_weights.py::test_presets_have_the_proportions_of_the_paper",
        "mix/test_weights.py::test_caps_of_the_presets_are_the_papers",
        "mix/test_mix_recipe.py::test_the_papers_proportions_hold_on_real_sources",
    ]),
    3: ("what happens where a source ends", [
        "mix/test_mix_recipe.py::test_once_is_every_row_exactly_once",
        "mix/test_mix_recipe.py::test_stop_names_the_task_that_ended_it",
        "mix/test_mix_recipe.py::test_the_default_goes_on_without_a_source_and_says_where",
        "mix/test_mix_plan.py::test_stopping_at_the_first_empty_task_loses_most_of_flan",
        "mix/test_mix_plan.py::test_repeat_goes_on_as_often_as_it_may",
    ]),
    4: ("exact counts", [
        "mix/test_mix_plan.py::test_counts_are_the_largest_remainder_allocation",
        "mix/test_order.py::test_counts_are_exact_and_each_pass_has_every_row_once",
    ]),
    5: ("same seed, same bytes, wherever and however it resumes", [
        "mix/test_mix_recipe.py::test_equal_commands_give_equal_bytes_and_another_seed_does_not",
        "mix/test_mix_recipe.py::test_a_killed_mixture_goes_on_part_by_part_with_the_same_bytes",
        "mix/test_order.py::test_machines_that_share_the_draws_make_one_order",
        "recipes/test_templating.py::test_the_same_seed_gives_the_same_bytes_and_another_one_others",
        "recipes/test_templating.py::test_the_order_of_the_file_changes_no_row",
    ]),
    6: ("every row says what it is", [
        "recipes/test_templating.py::test_every_style_has_every_column_and_drops_no_tail",
        "mix/test_mix_recipe.py::"
        "test_only_admitted_licences_are_mixed_and_the_rest_is_written_with_the_reason",
    ]),
    7: ("no evaluation item in training data", [
        "curate/test_decontaminate.py::test_planted_benchmark_questions_are_found_by_the_shipped_index",
        "curate/test_decontaminate.py::test_tasks_made_from_benchmarks_are_known_by_name",
    ]),
    8: ("templates are declared and linted", [
        "templates/test_lint.py::test_each_rule_finds_its_fault_and_names_the_line",
        "templates/test_lint.py::test_wordings_of_public_collections_that_do_not_hold_everywhere",
        "templates/test_lint.py::test_repeated_styles_in_lists_are_found",
        "templates/test_lint.py::test_what_we_ship_has_no_fault",
    ]),
    9: ("options", [
        "templates/test_options.py::test_there_are_at_least_sixty_distinct_label_styles",
        "templates/test_options.py::test_what_is_shown_is_read_back_and_the_gold_stays_right",
        "templates/test_options.py::test_more_than_26_options",
        "templates/test_options.py::test_several_right_options",
    ]),
    10: ("inversion from the field graph", [
        "templates/test_inversion.py::test_rationales_give_the_four_orders_of_the_paper",
        "templates/test_inversion.py::test_no_direction_leaks_what_it_asks_for",
        "recipes/test_templating.py::test_inverted_rows_ask_for_what_was_given",
    ]),
    11: ("few-shot", [
        "mix/test_fewshot.py::test_numbers_come_as_often_as_their_weights_say",
        "recipes/test_templating.py::test_mixed_templates_differ_within_a_prompt_consistent_ones_do_not",
        "mix/test_fewshot.py::test_marks_are_drawn_for_each_prompt_and_do_not_depend_on_the_batch",
        "recipes/test_templating.py::test_duplicates_of_a_query_are_no_exemplars",
        "mix/test_fewshot.py::test_labels_take_turns",
        "mix/test_fewshot.py::test_the_budget_drops_whole_exemplars_from_the_far_end",
        "recipes/test_templating.py::test_a_budget_drops_exemplars_and_counts_the_fall_back",
    ]),
    12: ("templates are drawn evenly, whatever the place of a row", [
        "recipes/test_templating.py::test_templates_are_drawn_evenly_and_not_by_position",
    ]),
    13: ("rationale and answer apart, in every ending", [
        "templates/test_endings.py::test_rationale_and_answer_are_recovered",
        "evaluate/test_extract.py::test_every_ending_chains_of_thought_are_taught_is_read",
        "recipes/test_templating.py::test_every_chain_of_thought_gives_its_answer_back",
    ]),
    14: ("every character survives; unknown tokens are counted", [
        "recipes/test_templating.py::test_every_character_survives_the_journey",
        "recipes/test_templating.py::test_a_tokenizer_counts_the_budget_and_what_it_does_not_know",
        "mix/test_pack_recipe.py::test_tokens_that_the_vocabulary_lacks_are_counted_by_task",
    ]),
    15: ("packed is unpacked", [
        "mix/test_packed_model.py::test_logits_and_gradients_are_those_of_the_rows_alone",
        "mix/test_row_pairs.py::test_logits_and_gradients_are_those_of_the_rows_alone",
        "mix/test_pack.py::test_columns_of_a_sequence",
        "mix/test_pack.py::test_masks",
    ]),
    16: ("best fit, nothing cut", [
        "mix/test_pack.py::test_bins_are_those_of_best_fit_decreasing",
        "mix/test_pack.py::test_a_lucky_order_is_taken_where_it_is_better",
        "mix/test_pack.py::test_token_id_zero_is_a_token",
        "mix/test_pack_recipe.py::test_long_rows_are_dropped_with_the_reason",
    ]),
    17: ("what the sequences hold", [
        "mix/test_pack_recipe.py::test_a_mixture_is_packed_with_the_share_of_each_task",
    ]),
    18: ("prompt, extractor, metric and average apart, with versions", [
        "evaluate/test_evaluate_recipe.py::test_a_models_answers_are_graded_and_logged",
        "evaluate/test_suites.py::test_every_suite_reads_a_row_and_makes_every_wording_of_its_prompt",
    ]),
    19: ("golden numbers", [
        "evaluate/test_numbers_of_runs.py::test_the_normalised_average_of_the_paper_comes_out",
        "evaluate/test_suites.py::test_gsm8k_gold_solutions_score_all",
        "evaluate/test_suites.py::test_mgsm_golds_score_all_in_every_language",
        "evaluate/test_stemming.py::test_rouge_l_with_stems_is_that_of_the_reference",
    ]),
    20: ("MMLU", [
        "evaluate/test_suites.py::test_mmlu_exemplars_are_repaired_unless_asked_raw",
        "evaluate/test_suites.py::test_mmlu_redux_has_labels_and_corrections",
        "evaluate/test_numbers_of_runs.py::"
        "test_failed_extractions_are_counted_apart_and_labels_have_their_own_accuracy",
    ]),
    21: ("BBH", [
        "evaluate/test_suites.py::test_bbh_golds_score_all_and_chance_follows_from_the_options",
        "evaluate/test_suites.py::test_a_stop_sequence_is_never_a_bare_letter",
        "evaluate/test_numbers_of_runs.py::test_the_means_of_bbh_are_those_of_the_papers",
    ]),
    22: ("languages", [
        "evaluate/test_numbers_of_runs.py::test_english_is_left_out_of_the_mean_over_languages",
        "evaluate/test_extract.py::test_articles_and_punctuation_of_a_language_do_not_count",
        "evaluate/test_suites.py::test_tydiqa_says_the_language_in_its_ids",
    ]),
    23: ("ranking by likelihood", [
        "evaluate/test_numbers_of_runs.py::test_each_way_to_normalise_may_choose_another_option",
        "evaluate/test_evaluate_recipe.py::test_options_are_ranked_by_likelihood",
        "evaluate/test_evaluate_recipe.py::test_options_ranked_may_have_several_right_ones",
    ]),
    24: ("self-consistency", [
        "evaluate/test_numbers_of_runs.py::"
        "test_the_estimate_of_a_majority_is_the_mean_over_all_subsets",
        "evaluate/test_numbers_of_runs.py::test_a_majority_breaks_ties_by_the_first_output",
        "evaluate/test_evaluate_recipe.py::test_samples_vote",
    ]),
    25: ("Super-NaturalInstructions", [
        "evaluate/test_suites.py::test_super_natural_instructions_are_the_first_hundred_of_test_tasks",
        "evaluate/test_suites.py::test_nested_squad_files_and_upstream_task_files_are_read",
    ]),
    26: ("intervals, paired tests, log, failures of extraction", [
        "evaluate/test_numbers_of_runs.py::test_the_interval_is_that_of_resampled_items",
        "evaluate/test_evaluate_recipe.py::test_two_runs_are_compared_on_the_same_items",
        "evaluate/test_extract.py::test_a_failed_extraction_is_no_wrong_answer",
    ]),
    27: ("normalised average, chance from the data", [
        "evaluate/test_numbers_of_runs.py::test_the_normalised_average_of_the_paper_comes_out",
        "evaluate/test_suites.py::test_bbh_golds_score_all_and_chance_follows_from_the_options",
    ]),
    28: ("no output crashes", [
        "evaluate/test_extract.py::test_no_output_crashes_any_extractor",
        "evaluate/test_evaluate_recipe.py::test_outputs_that_are_empty_or_no_utf8_are_failures_not_crashes",
    ]),
    29: ("open-ended", [
        "evaluate/test_pairs.py::"
        "test_the_likeliest_sample_that_does_not_repeat_itself_is_the_output",
        "evaluate/test_pairs.py::test_pairs_are_written_in_both_orders_and_tell_nothing_of_the_models",
        "evaluate/test_pairs.py::test_win_rate_and_position_bias_are_those_counted_by_hand",
    ]),
    30: ("the grid of ablations", [
        "mix/test_ablation.py::test_each_arm_lacks_what_it_says_and_no_row_is_lost",
        "mix/test_ablation.py::test_the_command",
    ]),
    31: ("inspect", [
        "mix/test_mix_recipe.py::test_what_is_inspected_is_what_is_mixed_and_nothing_is_written",
    ]),
    32: ("streaming export, resumed by parts", [
        "recipes/test_rendered.py::test_a_file_of_either_kind_and_a_folder_hold_the_same_rows",
        "recipes/test_rendered.py::test_datasets_open_a_folder",
        "recipes/test_rendered.py::"
        "test_killed_at_a_write_point_the_same_command_ends_in_the_same_bytes",
        "recipes/test_rendered.py::test_kill_9",
        "recipes/test_rendered.py::test_what_another_command_left_is_not_taken",
    ]),
    33: ("loaders with the published counts", [
        "recipes/test_public_counts.py::test_a_declared_set_has_the_rows_of_its_publication",
        "recipes/test_public_counts.py::test_a_benchmark_has_the_items_of_its_publication",
        "recipes/test_public_counts.py::test_a_table_has_the_rows_of_its_publication",
        "recipes/test_templating.py::test_every_training_file_of_the_catalogue_can_be_rendered",
    ]),
    34: ("the data card", [
        "recipes/test_rendered.py::test_the_card_of_rendered_rows_follows_from_the_manifest",
        "recipes/test_rendered.py::"
        "test_the_card_of_a_mixture_names_tasks_licences_languages_categories_and_sizes",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("number", range(1, 35))
def test_a_requirement_has_its_tests(number, is_a_test):
    words, named = REQUIREMENTS[number]
    assert words
    assert named
    for one in named:
        assert is_a_test(one), one
