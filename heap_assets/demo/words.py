"""Word lists that the sample company's names are made of; nobody in it is real and every domain ends in .example."""


def _listed(*lines: str) -> list[str]:
    return [word for line in lines for word in line.split()]


FIRST_NAMES = _listed(
    "Ada Aisha Alan Amara Ana Anders Anouk Arjun Asha Astrid Ben Bianca Boris Camila Carlos Chen Clara",
    "Dana Daniel Dario David Deepa Dmitri Elena Elif Emil Emma Erik Esra Eva Farid Fatima Felix Fiona",
    "Frida Gabriel Gita Grace Hana Hannah Hugo Ida Ines Ingrid Ivan Jana Javier Jin Jonas Julia Kaito",
    "Karin Kofi Lars Layla Lea Leo Lina Lucas Lucía Łukasz Maja Malik Mara Marco Maria Mateo Maya Mia",
    "Mila Mina Nadia Naomi Nils Nina Noah Nora Olga Oscar Paula Pavel Petra Priya Rafael Ravi Rosa Ruth",
    "Sami Sara Selma Sofia Sven Tara Theo Tomás Uma Vera Viktor Yara Yusuf Zara Zoë",
)

SURNAMES = _listed(
    "Abe Adeyemi Ahmed Alvarez Andersen Bakker Banerjee Bauer Becker Bianchi Brandt Brown Castro Chan",
    "Costa Cruz Dahl Das Diaz Dubois Eriksen Evans Fischer Fontaine Garcia Gomez Gupta Haas Hansen",
    "Hoffmann Horvat Ibrahim Ito Ivanov Jansen Johnson Kaya Keller Khan Kim Kowalski Kumar Lambert Larsen",
    "Lee Lehmann Li Lind Lopez Maier Martin Mendes Meyer Moreau Müller Nagy Nakamura Ndiaye Nguyen Novak",
    "O'Brien Okafor Olsen Ortiz Park Patel Pereira Petrov Popescu Ramos Reyes Ricci Rossi Santos Sato",
    "Schmidt Silva Singh Smith Sokolov Suzuki Tanaka Taylor Thomsen Torres Vargas Vogel Wagner Walker",
    "Wang Weber Wilson Wójcik Yamada Yilmaz Young Zhang Zimmermann",
)

COMPANIES = _listed(
    "alder anvil aspen atlas basalt beacon birch bolt cairn cedar cobalt copper coral crest delta drift",
    "ember fable fern flint forge fjord garnet glacier grove harbor hazel heron indigo iris jasper",
    "juniper kestrel lark ledger linden lumen maple marble meadow meridian moss nimbus north oak onyx",
    "opal orbit osprey pebble pine plover quartz quill raven reed ridge river rowan saffron sage slate",
    "sparrow spruce summit talon tern thistle timber topaz umber vale vector willow wren",
)

COMPANY_ENDINGS = ("works", "labs", "group", "freight", "foods", "media", "health", "energy", "tools", "bank")
MAIL_HOSTS = ("mail.example", "post.example", "inbox.example", "fastmail.example")

PLACES = (
    ("United States", "California", "San Francisco"),
    ("United States", "New York", "New York"),
    ("United States", "Texas", "Austin"),
    ("United Kingdom", "England", "London"),
    ("Germany", "Berlin", "Berlin"),
    ("Germany", "Bavaria", "Munich"),
    ("France", "Île-de-France", "Paris"),
    ("Spain", "Madrid", "Madrid"),
    ("Poland", "Masovia", "Warsaw"),
    ("India", "Karnataka", "Bengaluru"),
    ("Brazil", "São Paulo", "São Paulo"),
    ("Japan", "Tokyo", "Tokyo"),
)

VISIT_PATHS = (
    "/",
    "/pricing",
    "/features",
    "/blog/ten-reports",
    "/customers",
    "/docs",
    "/docs/start",
    "/about",
    "/signup",
)
APP_PATHS = (
    "/app", "/app/reports", "/app/reports/weekly", "/app/boards", "/app/boards/42", "/app/team", "/app/settings",
    "/app/billing", "/app/export", "/app/search",
)  # fmt: skip
FEATURES = ("report", "board", "filter", "share", "alert", "export", "search", "comment", "template", "api_key")
PLANS = ("free", "team", "business", "enterprise")
STAGES = ("lead", "qualified", "trial", "customer", "churn risk")
