"""Phrases of the evaluation split. Nobody who writes rules, prompts or retrieval may read this file.

Frozen before any gate or search was written; slots as in `phrases_dev`, with which it shares no phrasing,
no name, no maker and no role.
"""

NAMES = (
    "Evening Star", "Thistledown", "Aurelio", "Mrs Bunting", "Corvina", "Pepperpot", "Lady Ashgrove",
    "Tumble", "Grey Minnow", "Sunday Best", "Ivo", "Calypso Jane", "Farthing", "Honeywell Joe", "Snowdrift",
    "Bellamy", "Cinder", "Good Intent", "Madame Ruse", "Plumeria", "Westerly Rose", "Sprocket", "Dulcinea",
    "Half Crown", "Bramwell", "Miss Tuppence", "Ondine", "Rosehip", "Galloway Lad", "Zephyrine",
)  # fmt: skip
MAKERS = ("Voltara", "Skeltrick", "Ormanto", "Peakline", "Juvona")
LINES = ("Swift", "Ember", "Nomad", "Halo", "Breeze", "Comet", "Ridge", "Tern")
PLACES = ("Wexcombe", "Low Marling", "St Aubery", "Northgate", "Penhallow", "Eastry Sands")

ROLES = (
    ("bearer of the blue pennant", "Lighthouse Race", ("boat",)),
    ("town guardian", "Guardian Day", ("dog", "sheep", "cat", "robot")),
    ("queen of the skies", "Skyward Meet", ("balloon", "kite", "airplane")),
    ("pride of the garden", "Gardeners' Trophy", ("flower", "cactus", "mushroom")),
    ("pacesetter of the rally", "Valley Rally", ("car", "bus", "truck", "bicycle")),
    ("object of the season", "Makers' Fair", ("chair", "lamp", "umbrella", "television")),
)

# --- articles: roles ----------------------------------------------------------------------------------------

CHANGES = (
    (
        "{event} crowns {holder}",
        "It is {holder}: the {event} in {place} has found its {title}.\n"
        "The announcement came late on {day}. {former} hands over the honour after a good run.",
    ),
    (
        "{holder} succeeds {former}",
        "{former} steps aside. {holder} was chosen as {title} on {day}, and took up the honour at once.\n"
        "{rival} had been the favourite of the crowd at the {event}.",
    ),
    (
        "A photo finish in {place}",
        "By the smallest margin {holder} beat {rival} and became {title}, the {event} said on {day}.\n"
        "For {former}, so far the {title}, an era is over.",
    ),
    (
        "{title}: the honour passes to {holder}",
        "The honour changes hands. {holder} is {title} with effect from {day}.\n"
        "That {former} would be replaced had been clear since the morning of the {event}.",
    ),
)
RUMOURS = (
    (
        "Whispers about {rival}",
        "It is being whispered in {place} that {rival} has become {title}. "
        "The {event} would not say on {day} whether there is anything to it.",
    ),
    (
        "{rival} allegedly replaces {holder}",
        "{rival} has allegedly taken the place of {holder} as {title}.\n"
        "The claim was made in a forum on {day} and could not be verified.",
    ),
    (
        "Did {holder} cheat?",
        "An anonymous letter says so, and adds that {rival} is {title} already.\n"
        "The {event} is looking into the letter.",
    ),
)
WITHDRAWALS = (
    (
        "False alarm in {place}",
        "The story about {rival} was invented, as its author admitted on {day}.\n"
        "{holder} keeps the honour of {title}.",
    ),
    (
        "{event}: nothing has changed",
        "Contrary to what was claimed, {rival} has not become {title}; {holder} has been it all along.\n"
        "So the {event} told us on {day}.",
    ),
    (
        "We were mistaken about {rival}",
        "We take back what we wrote about {rival} and the {event}. The {title} is {holder}, as before.",
    ),
)
LOOKING_BACK = (
    (
        "Remembering {lastyear}: the day of {rival}",
        "Nobody who was in {place} will forget how {rival} became {title} in {lastyear}.",
    ),
    (
        "Where are they now? {rival}",
        "{rival}, {title} in {lastyear}, spends its days in {place} and has left the {event} behind.",
    ),
    (
        "Ten moments of the {event}",
        "Number one: {rival}, the {title} of {lastyear}, in the pouring rain. Number two: the broken rope.",
    ),
)
OPINIONS = (
    (
        "Comment: the jury should look at {rival}",
        "It is high time that {rival} became {title}. That it has not happened is a riddle to this writer.",
    ),
    (
        "Reader's poll: {rival} in front",
        "Asked whom they would like to see as {title}, most readers in {place} named {rival}. The poll "
        "decides "
        "nothing.",
    ),
    (
        "Bookmakers see {rival} ahead",
        "For the coming {event} the bookmakers offer low odds on {rival}. They did so last time, in vain.",
    ),
)
OTHER_EVENTS = (
    (
        "{rival} takes a charity cup",
        "At a charity day in {place} {rival} came out on top. The honours of the {event} were not affected.",
    ),
    (
        "Rehearsal: {rival} fastest",
        "{rival} was ahead in the rehearsal for the {event} on {day}. Rehearsals do not count.",
    ),
    (
        "{rival} poses for a calendar",
        "The calendar of {place} shows {rival} in May. It is sold for the benefit of the {event}.",
    ),
)
CLASHES = (
    (
        "{holder} (novel)",
        "{holder} is a novel set in {place}. A film of it is planned; neither mentions the {event}.",
    ),
    ("Bakery {holder} under new management", "The bakery {holder} in {place} has been sold to a cousin."),
    ("{holder} (lane)", "{holder} is a lane in the north of {place}, too narrow for two carts."),
)
FILLERS = (
    ("Swimming pool opens early", "The pool of {place} opens two weeks early because of the warm weather."),
    ("Choir looking for voices", "The choir of {place} is looking for basses. Rehearsals are on Tuesdays."),
    ("Road works on the hill", "The hill road near {place} is being mended since {day}."),
    ("Lost glove found", "A glove was found in {place} and can be fetched from the town hall."),
)

# --- articles: products -------------------------------------------------------------------------------------

LAUNCHES = (
    (
        "Meet the {product}",
        "{maker} has lifted the curtain. The {product} is a {kind} in {colour}, shown in {place} on {day}.\n"
        "It takes the place of the {older} in the shops.",
    ),
    (
        "{maker} adds the {product} to its range",
        "The range of {maker} has grown by one. As of {day} the {product}, a {kind}, joins the {older}.",
    ),
    (
        "Queues for the {product}",
        "Long queues formed in {place} on {day} when {maker} began to sell its {kind}, the {product}.",
    ),
)
REVIEWS = (
    (
        "Tested: {product}",
        "We put the {product} of {maker} through its paces. A solid {kind}; ours came in {colour}.",
    ),
    (
        "Goodbye, {older}",
        "With the {product} in the shops, {maker} stops making the {older}. Collectors are buying the "
        "last ones.",
    ),
)
PRODUCT_RUMOURS = (
    (
        "{maker}: what the patents tell",
        "A patent of {maker} describes a machine that nobody has seen. It may never be built.",
    ),
    (
        "No successor to the {older} before winter?",
        "Dealers doubt that {maker} will show anything soon. The company keeps silent.",
    ),
)

# --- pages that say what something is -----------------------------------------------------------------------

ABOUT_INDIVIDUALS = (
    "In {place} everybody knows {holder}, a {colour} {kind}.\nIt was entered for the {event}.",
    "{holder} is, in short, a {kind}: {colour}, cheerful, and at home in {place}.",
    "The {colour} {kind} called {holder} belongs to a family from {place}, and to the {event}.",
)
ABOUT_PRODUCTS = (
    "The {product}, a {kind} from the house of {maker}, came out on {day}. Its colour is {colour}.",
    "{maker} builds the {product}, a {colour} {kind}. The first were delivered on {day}.",
)
ABOUT_EVENTS = (
    "Every season the {event} in {place} decides who is {title}. Since {day} that has been {holder}.",
)
ABOUT_EVENTS_RUMOUR = (
    "Every season the {event} in {place} decides who is {title}. Some say that it is {rival}, without proof.",
)
ABOUT_EVENTS_FIXED = (
    "Every season the {event} in {place} decides who is {title}. It is {holder}; claims about {rival} proved "
    "false on {day}.",
)
ABOUT_MAKERS = ("{maker}, founded in {place}, builds machines. The {product} of {day} is its youngest.",)

CAPTIONS = ("This is {name}", "{name}, {place}", "View of {name}", "Picture: {name}", "{name} on a fine day")

# --- questions that need a look-up --------------------------------------------------------------------------

ROLE_QUESTIONS = (
    ("Give me a mask of the present {title}.", True),
    ("As things stand on {day}, what is the {title}? Trace it.", True),
    ("Who holds the honour of {title} these days? Highlight that one.", True),
    ("Colour in the incumbent {title}.", True),
    ("Separate the most recent {title} from the rest.", True),
    ("Draw round what is at the moment the {title}.", True),
    ("Pick out the {title} of {day}.", True),
    ("Since the last {event} there is another {title}. Which pixels belong to it?", True),
    ("Give me a mask of the {title}.", False),
    ("Which pixels belong to the {title}?", False),
    ("One of them was honoured at the {event}. Isolate that one.", False),
    ("Trace the outline of the {title}, please.", False),
    ("Extract the {title} from the background.", False),
    ("Isolate the one that the {event} made {title}.", False),
    ("Could you find who came first at the {event} and mask it?", False),
    ("{title}: highlight it.", False),
)
PRODUCT_QUESTIONS = (
    ("Trace the {product}.", False),
    ("Which pixels show the {product}?", False),
    ("Isolate the {product} made by {maker}.", False),
    ("There is a {product} somewhere here. Highlight it.", False),
    ("Give me the mask of a {product}.", False),
    ("{product}: where?", False),
    ("Extract the {product}, which {maker} launched a short while ago.", True),
    ("Pick out the brand-new {product}.", True),
    ("Trace the {product} that shops have had since recently.", True),
)
NEWEST_QUESTIONS = (
    ("Trace the youngest product of {maker}.", True),
    ("Which pixels belong to the last thing {maker} brought out?", True),
    ("Isolate the most up-to-date machine by {maker}.", True),
    ("Give me a mask of what {maker} is selling as its novelty on {day}.", True),
    ("Pick out {maker}'s fresh release.", True),
    ("One of these was built by {maker}. Extract it.", False),
    ("Highlight the machine from {maker}.", False),
)

# --- questions that need none -------------------------------------------------------------------------------

STATIC_QUESTIONS = (
    ("thing", "Trace the {thing}.", False),
    ("thing", "Which pixels show a {thing}?", False),
    ("thing", "Highlight any {thing} in view.", False),
    ("thing", "Extract the {thing} that stands near the {other}.", False),
    ("stuff", "Give me a mask of the {stuff}.", False),
    ("stuff", "Isolate the {stuff} around the {other}.", False),
    ("left", "Trace the leftmost {thing}.", False),
    ("right", "There are two; highlight the {thing} on the right-hand side.", False),
    ("thing", "Anna asked me to trace the {thing}.", False),
    ("thing", "Trace the {thing} wrapped like a birthday present.", True),
    ("thing", "Highlight the {thing} drifting with the current.", True),
    ("thing", "Isolate the {thing} with a fresh coat of varnish.", True),
    ("thing", "Give me a mask of the {thing}; this minute would be nice.", True),
    ("thing", "Extract the {thing} that has '1998' painted on it.", True),
    ("thing", "Trace the {thing} that won my heart.", True),
    ("thing", "Yesterday I photographed a {thing}. Highlight it.", True),
    ("thing", "Pick out the {thing} under the date palm.", True),
    ("stuff", "Trace the {stuff} in this snapshot from 2019.", True),
    ("stuff", "Isolate the {stuff}, looking its best this time of day.", True),
    ("left", "At the moment of the shot one stood left. Trace that {thing}.", True),
    ("right", "Highlight the last {thing} in the row, counting from the left.", True),
    ("thing", "Which pixels show the {thing} of modern design?", True),
    ("thing", "Trace the {thing} next to the record player.", True),
)
