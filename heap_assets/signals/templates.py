"""Signals to begin with, as they are written in the settings."""

from collections.abc import Mapping

TEMPLATES: Mapping[str, str] = {
    "high_intent": """\
# Three paywalls and an attempt to upgrade within half an hour, by people who pay nothing yet; once a week.
high_intent:
  sequence:
    steps: [{type: paywall_shown, count: 3}, {type: upgrade_clicked}]
    span_minutes: 30
  where: {user_properties: {plan: {in: [free, trial]}}}
  cool_down_days: 7
  event: High Intent
  properties: {plan: plan, score: engagement_score, account: account_id}
""",
    "onboarding_incomplete": """\
# Onboarding that was begun and not completed within three days; once an attempt. A late completion cancels it.
onboarding_incomplete:
  missing:
    start: {type: onboarding_started}
    completion: {type: onboarding_completed}
    within_days: 3
  cool_down_days: 30
  event: Onboarding Incomplete
""",
    "usage_threshold": """\
# The hundredth report of thirty days.
usage_threshold:
  threshold: {type: report_created, count: {gte: 100}, within_days: 30}
  cool_down_days: 30
""",
    "inactive": """\
# Nothing in Heap for two weeks.
inactive:
  inactive: {days: 14}
  cool_down_days: 14
""",
    "plan_upgrade": """\
# The plan went from one that costs nothing to one that does.
plan_upgrade:
  changed: {trait: plan, from: [free, trial], to: [pro, growth, enterprise]}
  properties: {plan: plan, mrr: mrr}
""",
    "qualified_lead": """\
# The score reached 20. profiles.scores: {pql_score: {weights: {invite_teammate: 10, export_data: 5, paywall_shown: 3}}}
qualified_lead:
  threshold: {trait: pql_score, gte: 20}
  cool_down_days: 30
  event: Qualified Lead
  properties: {score: pql_score, plan: plan}
""",
    "trial_expiring": """\
# Messages three, five and seven days after the trial began, until the person upgrades.
trial_expiring:
  campaign:
    anchor: {type: trial_started}
    steps:
      - {name: education, after_days: 3}
      - {name: case_study, after_days: 5}
      - {name: pricing, after_days: 7}
    stop: {type: plan_upgraded}
  event: Trial Expiring Soon
  properties: {plan: plan}
""",
}
"""Name to YAML below `signals:` (features.md T4, T6, T7, T8, G64)."""
