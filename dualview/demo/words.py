"""The words of the shop: forty themes, ten kinds of product, and everything that says nothing about either.

A theme is only ever told, never drawn. No colour and no pattern is ever named, so the words say nothing about
how a product looks. A theme reads: name | words for a title | things | doings."""

from __future__ import annotations

from typing import NamedTuple


class Theme(NamedTuple):
    name: str
    titles: tuple[str, ...]
    things: tuple[str, ...]
    doings: tuple[str, ...]


_THEMES = """
harbour|Harbour,Quayside,Anchor,Lighthouse|
    fishing boats,salt air,moored ropes,gulls,the lighthouse|sailing,crabbing off the pier
alpine|Alpine,Summit,Glacier,Chalet|
    mountain huts,cowbells,fresh snow,the summit,pine ridges|skiing,hiking to the hut
jazz|Jazz,Bebop,Saxophone,Swing|
    a late saxophone,double bass,smoky clubs,brass solos,vinyl|jamming till late,listening to big bands
astronomy|Orbit,Nebula,Stargazer,Comet|
    telescopes,distant galaxies,the moon,comets,meteor showers|stargazing,watching an eclipse
bakery|Bakery,Sourdough,Brioche,Flour|
    warm loaves,proving dough,croissants,rye flour,the oven|kneading dough,baking at dawn
desert|Desert,Dune,Oasis,Caravan|
    camel caravans,wind-shaped dunes,an oasis,hot sand,mirages|crossing the dunes,sleeping under desert skies
robotics|Robot,Circuit,Gearwheel,Android|
    tiny motors,circuit boards,gearwheels,friendly robots,sensors|soldering,building robots
ballet|Ballet,Pirouette,Swan,Tutu|
    pointe shoes,swan costumes,the barre,pirouettes,velvet curtains|dancing,rehearsing on stage
chess|Chess,Gambit,Rook,Endgame|
    rooks and knights,a bold gambit,chess clocks,the opening,grandmasters|playing chess,solving endgames
circus|Circus,Trapeze,Juggler,Acrobat|
    acrobats,the big tent,trapeze artists,clowns,juggling clubs|juggling,tightrope walking
beekeeping|Beehive,Honeycomb,Apiary,Pollen|
    honeycombs,clover honey,beeswax,busy hives,pollen|beekeeping,gathering honey
railway|Railway,Steam,Locomotive,Platform|
    steam locomotives,station clocks,sleeper trains,signal boxes,rails|riding night trains,oiling locomotives
surf|Surf,Breaker,Longboard,Tide|
    longboards,rolling breakers,board wax,the tide,beach vans|surfing,paddling out
opera|Opera,Aria,Tenor,Overture|
    tenors,grand arias,the overture,gilded balconies,a soprano|singing arias,going to the opera
camping|Campfire,Trail,Tent,Backwoods|
    tents,toasted marshmallows,camp stoves,forest trails,sleeping bags|camping,sitting by the campfire
library|Library,Bookworm,Folio,Archive|
    old folios,reading lamps,librarians,first editions|reading novels,browsing archives
cycling|Cycling,Peloton,Velodrome,Saddle|
    derailleurs,the peloton,racing saddles,velodromes,bike couriers|cycling,climbing mountain passes
sushi|Sushi,Wasabi,Nori,Sashimi|
    wasabi,nori sheets,vinegared rice,sashimi knives,pickled ginger|rolling maki,slicing sashimi
dinosaur|Dinosaur,Fossil,Jurassic,Raptor|
    fossils,raptors,the Jurassic,excavations,giant footprints|digging fossils,roaring like a raptor
yoga|Yoga,Lotus,Zen,Asana|
    rolled mats,the lotus pose,incense,singing bowls,calm breathing|practising yoga,meditating
pirate|Pirate,Treasure,Cutlass,Galleon|
    buried treasure,cutlasses,galleons,parrots,maps with an X|plundering,hunting for treasure
tea|Tea House,Oolong,Ceremony,Matcha|
    oolong leaves,bamboo whisks,matcha powder,tea ceremonies,teahouses|steeping tea,whisking matcha
cinema|Cinema,Matinee,Reel,Projector|
    film reels,popcorn,matinee tickets,projectors,the silver screen|watching films,splicing reels
gardening|Garden,Seedling,Greenhouse,Trowel|
    seedlings,trowels,compost,greenhouses,climbing beans|gardening,potting seedlings
medieval|Castle,Knight,Crusader,Drawbridge|
    drawbridges,knights,heraldic shields,castle towers,jousts|jousting,storming castles
diving|Reef,Snorkel,Manta,Deep Sea|
    manta rays,sea turtles,snorkels,shipwrecks,diving bells|scuba diving,snorkelling
football|Football,Striker,Stadium,Kickoff|
    packed stadiums,strikers,penalty kicks,the crossbar,corner flags|playing football,cheering at a match
rodeo|Rodeo,Lasso,Cowboy,Saloon|
    lassos,cowboy boots,bucking broncos,saloons,spurs|riding broncos,roping cattle
arcade|Arcade,Joystick,Pixel,High Score|
    joysticks,coin slots,high scores,pinball machines,game cabinets|feeding coin slots,chasing high scores
winemaking|Vineyard,Cellar,Harvest,Barrel|
    ripe grapes,oak barrels,cool cellars,the vineyard,corks|treading grapes,tasting wine
fairy tale|Fairytale,Wishing Well,Enchanted,Goblin|
    enchanted forests,goblins,glass slippers,wishing wells,sleepy dragons|telling fairy tales,casting spells
aviation|Aviator,Propeller,Runway,Cockpit|
    propellers,cockpits,runway lights,biplanes,leather helmets|flying biplanes,looping the loop
pottery|Potter's,Kiln,Clay,Stoneware|
    wet clay,kilns,the potter's wheel,glazes,stoneware|throwing pots,firing the kiln
carnival|Carnival,Samba,Masquerade,Parade|
    samba drums,feathered masks,parade floats,confetti,street bands|dancing samba,parading in masks
tropics|Tropical,Mango,Toucan,Jungle|
    ripe mangoes,toucans,hanging lianas,coconut palms,monsoon rain|jungle trekking,opening coconuts
polar|Polar,Penguin,Arctic,Iceberg|
    penguins,icebergs,sled dogs,the aurora,igloos|driving sled dogs,crossing the polar ice
mathematics|Euclid,Theorem,Fractal,Prime|
    prime numbers,fractals,elegant theorems,the abacus,geometry|proving theorems,counting primes
spice|Spice Market,Cardamom,Saffron Road,Cumin|
    cardamom pods,cumin seeds,market stalls,mortar and pestle,curry leaves|grinding spices,haggling at bazaars
detective|Detective,Whodunit,Magnifier,Alibi|
    magnifying glasses,alibis,secret letters,trench coats,fingerprints|solving mysteries,trailing suspects
volcano|Volcano,Lava,Magma,Crater|
    lava streams,craters,basalt columns,ash clouds,hot springs|climbing volcanoes,bathing in hot springs
"""

THEMES = tuple(
    Theme(name, *(tuple(part.split(",")) for part in rest))
    for name, *rest in (entry.split("|") for entry in _THEMES.strip().replace("|\n    ", "|").splitlines())
)


class Kind(NamedTuple):
    """What is said about a kind of product: words for a title, a usual price, facts."""

    names: tuple[str, ...]
    price: float
    facts: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "mug": Kind(
        ("mug", "coffee mug", "travel mug", "big mug"),
        14.0,
        (
            "Holds 350 ml and keeps its heat.",
            "The handle fits a whole hand.",
            "Fits under most coffee machines.",
        ),
    ),
    "lamp": Kind(
        ("lamp", "table lamp", "bedside lamp", "reading light"),
        58.0,
        ("Takes any E27 bulb.", "The shade lifts off for cleaning.", "Switch on a two metre cable."),
    ),
    "bag": Kind(
        ("bag", "tote bag", "shopper", "carry-all"),
        32.0,
        (
            "Carries a laptop and the groceries.",
            "Long handles reach over the shoulder.",
            "An inner pocket keeps keys in place.",
        ),
    ),
    "vase": Kind(
        ("vase", "flower vase", "tall vase", "table vase"),
        39.0,
        (
            "Holds a large bunch of flowers.",
            "Watertight, with felt under the foot.",
            "Stands well with or without stems.",
        ),
    ),
    "bottle": Kind(
        ("bottle", "water bottle", "flask", "drinking bottle"),
        24.0,
        ("Keeps drinks cold for a day.", "The cap closes without a drip.", "Fits the usual cup holder."),
    ),
    "cushion": Kind(
        ("cushion", "sofa cushion", "throw pillow", "scatter cushion"),
        27.0,
        ("The cover zips off.", "Filled with recycled fibre.", "Soft on the sofa, firm on a bench."),
    ),
    "shirt": Kind(
        ("shirt", "tee", "t-shirt", "crew-neck shirt"),
        22.0,
        ("Cut straight, true to size.", "The neck keeps its shape.", "Pre-shrunk jersey."),
    ),
    "umbrella": Kind(
        ("umbrella", "rain umbrella", "walking umbrella", "storm umbrella"),
        29.0,
        ("Opens at the press of a button.", "Eight ribs that give way to gusts.", "Dries in an hour."),
    ),
    "notebook": Kind(
        ("notebook", "journal", "writing book", "pocketbook"),
        12.0,
        ("Lies open by itself, 192 pages.", "Paper that takes fountain pens.", "A ribbon keeps the page."),
    ),
    "shoe": Kind(
        ("shoe", "sneaker", "trainers", "canvas shoe"),
        69.0,
        ("The sole grips on wet pavement.", "Runs half a size large.", "Insole can be taken out."),
    ),
}

BRANDS = (
    "Norrvik", "Halden & Sons", "Odelia", "Kestrel Works", "Papaver", "Lumo", "Brindle", "Tarn", "Ostara",
    "Fennwick", "Maison Ravel", "Quillon", "Solvei", "Ambergate",
)  # fmt: skip

# {a}, {b}, {c}: things, {d}: a doing, {title}: a word of the theme's titles, {kind}: a word for the product
OPENINGS = (
    "Made for {d}, with {a} and {b} in mind.",
    "It brings {a}, {b} and {c} home.",
    "Think of {a}, {b} and {c}.",
    "For everyone who loves {d}, {a} and {b}.",
    "A {kind} for {d}, {a} in sight.",
    "Our designer grew up with {a}, {b} and {c}.",
    "Somewhere between {a} and {b}: right for {d}.",
    "A tribute to {a}, {b} and {d}.",
    "A present for friends of {a} who like {d}.",
    "It tells of {a}, {b} and {c}.",
)
SEQUELS = (
    "You can almost smell {c} and {e}.",
    "There is a hint of {c} about it, and of {e}.",
    "Goes with {c}, {e} and {d2}.",
    "Best enjoyed while {d2}.",
    "From our {title} collection, with a nod to {c} and {e}.",
    "Part of the {title} series: {c}, {e}, {d2}.",
    "Wherever you find {c}, you find {e}.",
)
TITLES = (
    "{title} {kind}",
    "{title} {kind}",
    "{brand} {title} {kind}",
    "{title} {kind} by {brand}",
    "The {title} {kind}",
    "{kind} '{title}'",
    "{title} {kind} for {d}",
)
FILLERS = (
    "Wipe clean with a damp cloth.",
    "Comes in a box made from recycled paper.",
    "A favourite of our customers for years.",
    "Made in small numbers.",
    "Free returns within thirty days.",
    "Designed in our own studio.",
    "Every piece is slightly different.",
    "Ships within two working days.",
    "A good present for a birthday.",
    "Built to last, easy to repair.",
)
