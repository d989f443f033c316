select contact_id, email, stage, account_id, created_at, updated_at
from {{ source('crm', 'contacts') }}
