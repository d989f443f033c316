#!/bin/sh
# Service accounts with the least that they need: one reads and publishes in BigQuery, one uses the lake in a bucket.
# PROJECT, DATASET (published to), SOURCE (Heap's dataset, read only) and BUCKET come from the environment.
set -eu

gcloud iam service-accounts create heap-assets-bigquery --project "$PROJECT"
gcloud iam service-accounts create heap-assets-lake --project "$PROJECT"

bigquery="serviceAccount:heap-assets-bigquery@$PROJECT.iam.gserviceaccount.com"
lake="serviceAccount:heap-assets-lake@$PROJECT.iam.gserviceaccount.com"

gcloud projects add-iam-policy-binding "$PROJECT" --member "$bigquery" --role roles/bigquery.jobUser --condition None
bq add-iam-policy-binding --member "$bigquery" --role roles/bigquery.dataEditor "$PROJECT:$DATASET"
bq add-iam-policy-binding --member "$bigquery" --role roles/bigquery.dataViewer "$PROJECT:$SOURCE"
gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member "$lake" --role roles/storage.objectUser
