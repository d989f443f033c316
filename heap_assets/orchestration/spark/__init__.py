"""Jobs of Spark that resolve identities: started by the step, waited for, and taken over by what they report."""
