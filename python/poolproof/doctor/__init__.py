"""What is wrong between an application and its server, with evidence: the checks.

`catalogue` has the table of them; `run` goes through it; the four files `server`,
`path`, `application` and `live` have what each check looks at.
"""
