select customer_id, crm_contact_id, email, plan_name as plan, mrr, created_at, updated_at
from (select * rename (plan as plan_name) from {{ source('billing', 'customers') }})
