//! The languages that `language:response_language` can name: their codes, English names,
//! what their script allows a counting rule to count, and three sentences of each.
//!
//! The codes and names are the checker's thirty. The sentences are ours, plain and free of
//! commas; langdetect with seed 0 names the right language for any one of them.

/// One language of the checker's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    /// ISO 639-1 code, the checker's parameter.
    pub code: &'static str,
    /// English name, the word that instructions use.
    pub name: &'static str,
    /// What the English counting rules see in its script.
    pub script: Script,
    /// Sentences without commas, each detected as this language on its own.
    pub sentences: [&'static str; 3],
}

/// How far the counting rules, which are made for English, work in a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Latin letters: cases, words and full stops are as in English.
    Latin,
    /// Has cases and full stops, but other letters (Cyrillic).
    Cyrillic,
    /// Words and full stops, no cases (Arabic, Hebrew, Hangul).
    Caseless,
    /// Neither cases, nor words that `\w+` counts, nor sentence ends that Punkt knows: the
    /// scripts of India, Thai, Japanese, and Urdu with its own full stop.
    Uncounted,
}

/// The checker's thirty languages, in its order.
pub const LANGUAGES: [Language; 30] = [
    language(
        "en",
        "English",
        Script::Latin,
        [
            "The old bridge crosses the quiet river near the town.",
            "We walked home slowly because the evening was warm.",
            "My sister keeps a small garden behind the house.",
        ],
    ),
    language(
        "es",
        "Spanish",
        Script::Latin,
        [
            "El viejo puente cruza el río tranquilo cerca del pueblo.",
            "Volvimos a casa despacio porque la noche era muy agradable.",
            "Mi hermana tiene un pequeño jardín detrás de la casa.",
        ],
    ),
    language(
        "pt",
        "Portuguese",
        Script::Latin,
        [
            "A ponte antiga atravessa o rio tranquilo perto da cidade.",
            "Voltamos para casa devagar porque a noite não estava fria.",
            "Minha irmã não tem um jardim atrás da casa dela.",
        ],
    ),
    language(
        "ar",
        "Arabic",
        Script::Caseless,
        [
            "يعبر الجسر القديم النهر الهادئ بالقرب من المدينة.",
            "عدنا إلى البيت ببطء لأن المساء كان دافئا.",
            "تملك أختي حديقة صغيرة خلف المنزل.",
        ],
    ),
    language(
        "hi",
        "Hindi",
        Script::Uncounted,
        [
            "पुराना पुल शहर के पास शांत नदी को पार करता है।",
            "हम धीरे धीरे घर लौटे क्योंकि शाम बहुत अच्छी थी।",
            "मेरी बहन के घर के पीछे एक छोटा बगीचा है।",
        ],
    ),
    language(
        "fr",
        "French",
        Script::Latin,
        [
            "Le vieux pont traverse la rivière calme près de la ville.",
            "Nous sommes rentrés lentement parce que la soirée était douce.",
            "Ma sœur possède un petit jardin derrière la maison.",
        ],
    ),
    language(
        "ru",
        "Russian",
        Script::Cyrillic,
        [
            "Старый мост пересекает тихую реку недалеко от города.",
            "Мы медленно возвращались домой потому что вечер был тёплый.",
            "У моей сестры есть маленький сад за домом.",
        ],
    ),
    language(
        "de",
        "German",
        Script::Latin,
        [
            "Die alte Brücke führt in der Nähe der Stadt über den ruhigen Fluss.",
            "Wir gingen langsam nach Hause und freuten uns über den warmen Abend.",
            "Meine Schwester hat einen kleinen Garten hinter dem Haus.",
        ],
    ),
    language(
        "ja",
        "Japanese",
        Script::Uncounted,
        [
            "古い橋は町の近くの静かな川にかかっています。",
            "暖かい夜だったので私たちはゆっくり家に帰りました。",
            "姉は家の裏に小さな庭を持っています。",
        ],
    ),
    language(
        "it",
        "Italian",
        Script::Latin,
        [
            "Il vecchio ponte attraversa il fiume tranquillo vicino alla città.",
            "Siamo tornati a casa lentamente perché la serata era piacevole.",
            "Mia sorella ha un piccolo giardino dietro la casa.",
        ],
    ),
    language(
        "bn",
        "Bengali",
        Script::Uncounted,
        [
            "পুরনো সেতুটি শহরের কাছে শান্ত নদী পার হয়েছে।",
            "সন্ধ্যাটা সুন্দর ছিল বলে আমরা ধীরে ধীরে বাড়ি ফিরলাম।",
            "আমার বোনের বাড়ির পিছনে একটি ছোট বাগান আছে।",
        ],
    ),
    language(
        "uk",
        "Ukrainian",
        Script::Cyrillic,
        [
            "Старий міст перетинає тиху річку неподалік від міста.",
            "Ми повільно поверталися додому бо вечір був дуже теплий.",
            "У моєї сестри є маленький сад за будинком.",
        ],
    ),
    language(
        "th",
        "Thai",
        Script::Uncounted,
        [
            "สะพานเก่าข้ามแม่น้ำที่เงียบสงบใกล้เมือง",
            "เราเดินกลับบ้านช้าๆ เพราะตอนเย็นอากาศดี",
            "พี่สาวของฉันมีสวนเล็กๆ อยู่หลังบ้าน",
        ],
    ),
    language(
        "ur",
        "Urdu",
        Script::Uncounted,
        [
            "پرانا پل شہر کے قریب پرسکون دریا کو پار کرتا ہے۔",
            "ہم آہستہ آہستہ گھر لوٹے کیونکہ شام بہت اچھی تھی۔",
            "میری بہن کے گھر کے پیچھے ایک چھوٹا سا باغ ہے۔",
        ],
    ),
    language(
        "ta",
        "Tamil",
        Script::Uncounted,
        [
            "பழைய பாலம் நகரத்திற்கு அருகில் அமைதியான ஆற்றைக் கடக்கிறது.",
            "மாலை இனிமையாக இருந்ததால் நாங்கள் மெதுவாக வீடு திரும்பினோம்.",
            "என் சகோதரிக்கு வீட்டின் பின்னால் ஒரு சிறிய தோட்டம் உள்ளது.",
        ],
    ),
    language(
        "te",
        "Telugu",
        Script::Uncounted,
        [
            "పాత వంతెన పట్టణం దగ్గర ప్రశాంతమైన నదిని దాటుతుంది.",
            "సాయంత్రం బాగుంది కాబట్టి మేము నెమ్మదిగా ఇంటికి తిరిగి వచ్చాము.",
            "మా అక్కకు ఇంటి వెనుక ఒక చిన్న తోట ఉంది.",
        ],
    ),
    language(
        "bg",
        "Bulgarian",
        Script::Cyrillic,
        [
            "Старият мост пресича тихата река близо до града.",
            "Върнахме се бавно вкъщи защото вечерта беше топла.",
            "Сестра ми има малка градина зад къщата.",
        ],
    ),
    language(
        "ko",
        "Korean",
        Script::Caseless,
        [
            "오래된 다리는 마을 근처의 조용한 강을 건넌다.",
            "저녁이 따뜻해서 우리는 천천히 집으로 돌아왔다.",
            "내 여동생은 집 뒤에 작은 정원을 가지고 있다.",
        ],
    ),
    language(
        "pl",
        "Polish",
        Script::Latin,
        [
            "Stary most przecina spokojną rzekę niedaleko miasta.",
            "Wracaliśmy powoli do domu bo wieczór był bardzo ciepły.",
            "Moja siostra ma mały ogród za domem.",
        ],
    ),
    language(
        "he",
        "Hebrew",
        Script::Caseless,
        [
            "הגשר הישן חוצה את הנהר השקט ליד העיר.",
            "חזרנו הביתה לאט כי הערב היה נעים.",
            "לאחותי יש גינה קטנה מאחורי הבית.",
        ],
    ),
    language(
        "fa",
        "Persian",
        Script::Caseless,
        [
            "پل قدیمی از روی رودخانه آرام نزدیک شهر می‌گذرد.",
            "ما آهسته به خانه برگشتیم چون هوای عصر گرم بود.",
            "خواهر من پشت خانه یک باغچه کوچک دارد.",
        ],
    ),
    language(
        "vi",
        "Vietnamese",
        Script::Latin,
        [
            "Cây cầu cũ bắc qua con sông yên tĩnh gần thị trấn.",
            "Chúng tôi đi bộ về nhà chậm rãi vì buổi tối rất ấm áp.",
            "Chị gái tôi có một khu vườn nhỏ phía sau nhà.",
        ],
    ),
    language(
        "ne",
        "Nepali",
        Script::Uncounted,
        [
            "पुरानो पुलले सहर नजिकैको शान्त नदी पार गर्छ।",
            "साँझ रमाइलो भएकोले हामी बिस्तारै घर फर्कियौं।",
            "मेरी दिदीको घरको पछाडि एउटा सानो बगैंचा छ।",
        ],
    ),
    language(
        "sw",
        "Swahili",
        Script::Latin,
        [
            "Daraja la zamani linavuka mto mtulivu karibu na mji wetu.",
            "Tulirudi nyumbani polepole kwa sababu jioni ilikuwa nzuri.",
            "Dada yangu ana bustani ndogo nyuma ya nyumba yake.",
        ],
    ),
    language(
        "kn",
        "Kannada",
        Script::Uncounted,
        [
            "ಹಳೆಯ ಸೇತುವೆ ಪಟ್ಟಣದ ಬಳಿ ಶಾಂತ ನದಿಯನ್ನು ದಾಟುತ್ತದೆ.",
            "ಸಂಜೆ ಚೆನ್ನಾಗಿದ್ದರಿಂದ ನಾವು ನಿಧಾನವಾಗಿ ಮನೆಗೆ ಮರಳಿದೆವು.",
            "ನನ್ನ ಅಕ್ಕನ ಮನೆಯ ಹಿಂದೆ ಒಂದು ಸಣ್ಣ ತೋಟವಿದೆ.",
        ],
    ),
    language(
        "mr",
        "Marathi",
        Script::Uncounted,
        [
            "जुना पूल शहराजवळच्या शांत नदीवरून जातो आहे.",
            "संध्याकाळ छान होती म्हणून आम्ही हळूहळू घरी परत आलो.",
            "माझ्या बहिणीची घरामागे एक छोटी बाग आहे.",
        ],
    ),
    language(
        "gu",
        "Gujarati",
        Script::Uncounted,
        [
            "જૂનો પુલ શહેરની નજીક શાંત નદીને પાર કરે છે.",
            "સાંજ સરસ હતી તેથી અમે ધીમે ધીમે ઘરે પાછા ફર્યા.",
            "મારી બહેનના ઘરની પાછળ એક નાનો બગીચો છે.",
        ],
    ),
    language(
        "pa",
        "Punjabi",
        Script::Uncounted,
        [
            "ਪੁਰਾਣਾ ਪੁਲ ਸ਼ਹਿਰ ਦੇ ਨੇੜੇ ਸ਼ਾਂਤ ਨਦੀ ਨੂੰ ਪਾਰ ਕਰਦਾ ਹੈ।",
            "ਸ਼ਾਮ ਬਹੁਤ ਵਧੀਆ ਸੀ ਇਸ ਲਈ ਅਸੀਂ ਹੌਲੀ ਹੌਲੀ ਘਰ ਵਾਪਸ ਆਏ।",
            "ਮੇਰੀ ਭੈਣ ਦੇ ਘਰ ਦੇ ਪਿੱਛੇ ਇੱਕ ਛੋਟਾ ਬਾਗ ਹੈ।",
        ],
    ),
    language(
        "ml",
        "Malayalam",
        Script::Uncounted,
        [
            "പഴയ പാലം പട്ടണത്തിനടുത്തുള്ള ശാന്തമായ നദി കടക്കുന്നു.",
            "വൈകുന്നേരം നല്ലതായിരുന്നതിനാൽ ഞങ്ങൾ പതുക്കെ വീട്ടിലേക്ക് മടങ്ങി.",
            "എന്റെ സഹോദരിക്ക് വീടിന് പിന്നിൽ ഒരു ചെറിയ തോട്ടമുണ്ട്.",
        ],
    ),
    language(
        "fi",
        "Finnish",
        Script::Latin,
        [
            "Vanha silta ylittää rauhallisen joen lähellä kaupunkia.",
            "Kävelimme hitaasti kotiin koska ilta oli hyvin lämmin.",
            "Siskollani on pieni puutarha talon takana.",
        ],
    ),
];

/// The entry of a code, if the checker knows it.
#[must_use]
pub fn by_code(code: &str) -> Option<&'static Language> {
    LANGUAGES.iter().find(|language| language.code == code)
}

const fn language(
    code: &'static str,
    name: &'static str,
    script: Script,
    sentences: [&'static str; 3],
) -> Language {
    Language {
        code,
        name,
        script,
        sentences,
    }
}
