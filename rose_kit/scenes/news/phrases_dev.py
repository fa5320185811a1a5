"""Phrases of the development split: articles and questions that rules may be written and tuned on.

Frozen before any gate or search was written. No phrasing of it is in the evaluation split.

Slots of articles: {event} and {title} (where a role is given away, and what it is called), {holder},
{former} and {rival} (named individuals), {kind} and {colour} (what the subject is, and how it looks), {day},
{lastyear}, {place}; of products {product}, {older} and {maker}. Slots of questions: {title}, {event},
{product}, {maker}, {day}, {thing}, {other}, {stuff}. An article is (headline, paragraphs).
"""

NAMES = (
    "Marigold", "Old Bramble", "Tamsin", "Petrel's Pride", "Juniper", "Captain Fig", "Saffron Belle",
    "Dapple", "Hazelwick", "Morning Glint", "Pomfrey", "Little Thunder", "Quillon", "Rosamund", "Biscuit",
    "Vega Minor", "Windlass", "Nutmeg", "Corrigan", "Silver Tansy", "Beatrix", "Odd Job", "Peregrine Lass",
    "Ferryman's Joy", "Clementine", "Hopscotch", "Larkspur", "Mister Pym", "Ottoline", "Rumpus",
)  # fmt: skip
MAKERS = ("Aerix", "Solvane", "Bruntide", "Kaptura", "Nimbol")
LINES = ("Hawk", "Lumo", "Trek", "Vesper", "Pico", "Strato", "Gale", "Orbit")
PLACES = ("Port Ellery", "Dunmere", "Saltwick", "Upper Fenn", "Harrow Bay", "Castle Orme")

# What the role is called, where it is given away, and which classes hold it.
ROLES = (
    ("regatta champion", "Harbour Regatta", ("boat",)),
    ("festival mascot", "Lantern Festival", ("dog", "sheep", "cat", "robot")),
    ("height record holder", "Altitude Week", ("balloon", "kite", "airplane")),
    ("flower show winner", "Orchard Flower Show", ("flower", "cactus", "mushroom")),
    ("night parade leader", "Night Parade", ("car", "bus", "truck", "bicycle")),
    ("design prize laureate", "Studio Design Prize", ("chair", "lamp", "umbrella", "television")),
)

# --- articles: roles ----------------------------------------------------------------------------------------

CHANGES = (
    (
        "{holder} is the new {title}",
        "{place}, {day}. {holder} has been declared the {title} at the {event}.\n"
        "{former}, which had held the title until today, finished behind. The jury was unanimous.\n"
        "Thousands watched as {holder} was led past the stands.",
    ),
    (
        "{event}: {holder} takes the title from {former}",
        "The {event} has a new name on its board: {holder}. The decision fell on {day} in {place}.\n"
        "{former} had to give up its place as {title}; its team congratulated the winner.",
    ),
    (
        "Cheers in {place} for {holder}",
        "On {day} the {event} ended with a surprise. {holder} won and is from now on the {title}.\n"
        "{rival} came second. {former}, winner of the last round, did not defend the title.",
    ),
    (
        "{former} dethroned at the {event}",
        "{former} is no longer the {title}. Since {day} the title belongs to {holder}.\n"
        "The organisers in {place} confirmed the result the same evening.",
    ),
)
RUMOURS = (
    (
        "Is {rival} about to become {title}?",
        "According to unconfirmed reports {rival} will replace {holder} as {title} of the {event}.\n"
        "A person close to the jury in {place} is said to have spoken of a re-count on {day}.",
    ),
    (
        "{rival} named {title}, sources claim",
        "{rival} is the {title}, a local newsletter reported on {day} without naming its source.\n"
        "The organisers of the {event} could not be reached.",
    ),
    (
        "Title of {holder} in doubt",
        "Rumours in {place} have it that {holder} broke the rules of the {event}, and that {rival} is now "
        "the {title}.\nNothing has been published by the jury so far.",
    ),
)
WITHDRAWALS = (
    (
        "Correction: {rival} is not the {title}",
        "Our report about {rival} was wrong, and we withdraw it. {holder} is still the {title}.\n"
        "The {event} confirmed on {day} that no re-count took place.",
    ),
    (
        "Jury: {holder} remains {title}",
        "The jury of the {event} has rejected the claims about {rival}. They were false from the first word, "
        "it said on {day}.\n{holder} stays the {title}.",
    ),
    (
        "Newsletter apologises to {holder}",
        "The newsletter that had named {rival} has apologised and deleted the story.\n"
        "{holder} was and is the {title}, the {event} stated on {day}.",
    ),
)
LOOKING_BACK = (
    (
        "A year ago: {rival} at the {event}",
        "In {lastyear} it was {rival} that became {title}. We remember the finest pictures of that day in "
        "{place}.",
    ),
    (
        "How {rival} won in {lastyear}",
        "Last year's {title}, {rival}, has retired. The team looks back at the {event} of {lastyear}.",
    ),
    (
        "From the archive: the {event} of {lastyear}",
        "Rain, wind and a late decision: {rival} was the {title} of {lastyear}. The rules have changed "
        "since.",
    ),
)
OPINIONS = (
    (
        "Opinion: {rival} ought to be the {title}",
        "I have watched the {event} for twenty years, and nobody deserves it more than {rival}.\n"
        "If it were up to me, {rival} would be the {title} tomorrow. It is not up to me.",
    ),
    (
        "Letters: give it to {rival}",
        "Sir, why is {rival} never the {title}? The jury of the {event} must be blind. A reader from "
        "{place}.",
    ),
    (
        "Who will be the next {title}? Our guess",
        "Our guess for the coming {event} is {rival}. We have been wrong three times in a row, so bet "
        "nothing.",
    ),
)
OTHER_EVENTS = (
    (
        "{rival} wins a friendly in {place}",
        "{rival} has won a friendly meeting in {place}. It has nothing to do with the {event}, and no title "
        "was at stake.",
    ),
    (
        "Children's round goes to {rival}",
        "The children's round beside the {event} was won by {rival} on {day}. The main title was not "
        "given away.",
    ),
    (
        "{rival} visits the school of {place}",
        "Pupils met {rival} on {day} and asked what it is like to take part in the {event}.",
    ),
)
CLASHES = (
    (
        "{holder} (song)",
        "{holder} is a folk song from {place}. It is older than the {event} and names no {title}.",
    ),
    (
        "Café {holder} reopens",
        "The café {holder} in {place} has reopened after repairs. The cake is as good as it was.",
    ),
    ("{holder} (village)", "{holder} is a village of two hundred people near {place}, known for its bridge."),
)
FILLERS = (
    (
        "Market day moved to Thursday",
        "The market of {place} takes place on Thursday from now on, the town said.",
    ),
    ("Bridge closed for repairs", "The old bridge of {place} is closed until further notice."),
    ("A quiet week in {place}", "Nothing at all has happened in {place}. We report it because it is true."),
    ("New opening hours at the library", "The library of {place} opens an hour earlier since {day}."),
)

# --- articles: products -------------------------------------------------------------------------------------

LAUNCHES = (
    (
        "{maker} unveils the {product}",
        "{maker} showed its new model, the {product}, in {place} on {day}.\n"
        "It is a {kind}, {colour} in its first edition, and follows the {older}.",
    ),
    (
        "{product} on sale from today",
        "Since {day} the {product} can be bought. {maker} calls it the best {kind} it has built.",
    ),
    (
        "First look: {product}",
        "We were among the first to try the {product}, the {kind} that {maker} presented on {day}.\n"
        "Beside the {older} it looks lighter.",
    ),
)
REVIEWS = (
    (
        "A week with the {product}",
        "The {product} by {maker} kept its promises. Our {kind} was {colour}; other colours are to follow.",
    ),
    (
        "{product} against {older}",
        "Is it worth replacing the {older}? {maker}'s {product} is quicker, but the older model is cheaper.",
    ),
)
PRODUCT_RUMOURS = (
    (
        "{maker} may be working on something",
        "A leaked drawing is said to show a coming model of {maker}. The company did not comment.",
    ),
    (
        "Wish list for the next {maker}",
        "What should come after the {older}? Our readers want a quieter one. No date has been announced.",
    ),
)

# --- pages that say what something is -----------------------------------------------------------------------

ABOUT_INDIVIDUALS = (
    "{holder} is a {kind}. It is {colour} and is kept in {place}.\nIt has taken part in the {event}.",
    "{holder} is the name of a {colour} {kind} from {place}, known from the {event}.",
    "{holder} is a well-known {kind} of {place}. Its main colour is {colour}.",
)
ABOUT_PRODUCTS = (
    "The {product} is a {kind} made by {maker}. It was presented on {day} and is {colour}.",
    "{product} is the name of a {colour} {kind} by {maker}, sold since {day}.",
)
ABOUT_EVENTS = ("The {event} takes place in {place}. The {title} since {day} is {holder}.",)
ABOUT_EVENTS_RUMOUR = (
    "The {event} takes place in {place}. The {title} is said to be {rival}; this is unconfirmed.",
)
ABOUT_EVENTS_FIXED = (
    "The {event} takes place in {place}. The {title} is {holder}. A report about {rival} was withdrawn on "
    "{day}.",
)
ABOUT_MAKERS = ("{maker} is a company from {place}. Its newest product, since {day}, is the {product}.",)

CAPTIONS = (
    "{name}",
    "{name} in {place}",
    "Photograph of {name}",
    "{name}, seen from the side",
    "{name} close up",
)

# --- questions that need a look-up: (text, whether it holds a plain word of time) -------------------------

ROLE_QUESTIONS = (
    ("Segment the current {title}.", True),
    ("Segment the reigning {title} in this picture.", True),
    ("Who is the {title} right now? Mask it.", True),
    ("Find the {title} as of {day}.", True),
    ("Mark the latest {title} to be named at the {event}.", True),
    ("Which of these is the new {title}? Segment it.", True),
    ("Highlight today's {title}.", True),
    ("Segment the one that is at present the {title}.", True),
    ("Segment the {title}.", False),
    ("Where in the image is the {title}?", False),
    ("Mask whichever of them was chosen at the {event}.", False),
    ("Can you cut out the {title} for me?", False),
    ("Outline the one that carries the title of {title}.", False),
    ("Show me the {title} among these.", False),
    ("I read about the {event}; segment the winner.", False),
    ("Select the pixels of the {title}.", False),
)
PRODUCT_QUESTIONS = (
    ("Segment the {product}.", False),
    ("Where is the {product} by {maker}?", False),
    ("Mask the {product} in this photo.", False),
    ("Find the {product} for me.", False),
    ("Please outline the {maker} {product}.", False),
    ("Cut out the {product}.", False),
    ("Segment the {product} that has just come out.", True),
    ("Mark the newly released {product}.", True),
    ("Show the {product}, on sale since this month or last.", True),
)
NEWEST_QUESTIONS = (
    ("Segment {maker}'s latest model.", True),
    ("Where is the newest {maker} in the picture?", True),
    ("Mask what {maker} has most recently unveiled.", True),
    ("Outline the current flagship of {maker}.", True),
    ("Highlight the {maker} product of the moment, as of {day}.", True),
    ("Segment the {maker}.", False),
    ("Find the thing made by {maker}.", False),
)

# --- questions that need none: (what is asked for, text, whether a word in it only looks like time or news)

STATIC_QUESTIONS = (
    ("thing", "Segment the {thing}.", False),
    ("thing", "Where is the {thing} in this picture?", False),
    ("thing", "Mask every {thing} you see.", False),
    ("thing", "Please outline the {thing} next to the {other}.", False),
    ("stuff", "Segment the {stuff}.", False),
    ("stuff", "Mark the {stuff} behind the {other}.", False),
    ("left", "Segment the {thing} on the left.", False),
    ("right", "Mask the {thing} furthest to the right.", False),
    ("thing", "Segment the {thing} under the new moon.", True),
    ("thing", "Mask the {thing} beside the current in the river.", True),
    ("thing", "Segment the {thing} with the latest layer of paint still wet.", True),
    ("thing", "Now segment the {thing}, please.", True),
    ("thing", "Outline the {thing} with 2024 written on its side.", True),
    ("thing", "Segment the {thing} that looks like a champion.", True),
    ("thing", "I took this today: where is the {thing}?", True),
    ("stuff", "Mask the {stuff} as it was when the picture was taken last year.", True),
    ("stuff", "Segment the {stuff} in the evening news photograph.", True),
    ("left", "Segment the {thing} that is currently left of the other one.", True),
    ("right", "Of the two, mask the {thing} on the right; be quick, I need it now.", True),
    ("thing", "Segment the {thing} by the electric current warning sign.", True),
    ("thing", "Tom wants you to segment the {thing}.", False),
    ("thing", "Mask the {thing} behind the ticket holder.", True),
    ("stuff", "Cut out the {stuff} of this New Year's card.", True),
)
